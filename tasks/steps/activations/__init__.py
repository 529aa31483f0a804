"""Activations of named layers for the user's analyses: stages without a page."""
