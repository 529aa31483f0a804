"""Figures of the card of one image."""
