"""Figures of question 1."""
