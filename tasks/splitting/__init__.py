"""Two methods to cut a network at a layer: by its graph, or by two runs with hooks."""
