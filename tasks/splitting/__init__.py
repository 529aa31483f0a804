"""Two ways to cut a network at a layer: by its graph, or by running it twice with hooks."""
