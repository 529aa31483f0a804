"""Data sets and weights in: sources of samples, manifests, images, networks."""
