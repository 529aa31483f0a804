"""Steps: open stores, call one pure function per partition, write, mark. Prefect is met in `runner` only."""
