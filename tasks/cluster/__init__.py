"""Clusters, their workers, and the spread of partitions over them."""
