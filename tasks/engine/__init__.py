"""The life of a stage of any kind: claim, create or resume, map the missing partitions, seal."""
