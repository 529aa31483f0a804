"""The plan of a run, its Prefect flows, and the command line."""
