"""Stores, stages and their formats."""
