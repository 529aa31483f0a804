"""Where work runs: clusters, their workers, and how partitions are spread over them."""
