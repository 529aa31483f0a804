"""Readers of data sets and weights: sources of samples, manifests, images, networks."""
