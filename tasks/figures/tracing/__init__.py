"""Figures of question 4."""
