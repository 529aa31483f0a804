"""Activations of named layers, kept for analyses of the user's own: stages without a page."""
