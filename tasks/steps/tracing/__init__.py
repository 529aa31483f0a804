"""Stages of question 4: queries, contributions of every update, their sums, and their evaluations."""
