"""Steps: they open stores, call one pure function for each partition, and write its result and its record."""
