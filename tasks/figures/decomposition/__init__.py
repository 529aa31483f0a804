"""Figures of question 2."""
