"""Figures of question 3."""
