"""A folder with one module, which the process that workers are forked from finds by its own name."""
