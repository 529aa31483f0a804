"""How a stage of any kind lives: claim, create or resume, map the missing partitions, seal."""
