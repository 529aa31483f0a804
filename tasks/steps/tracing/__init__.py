"""Stages of question 4: queries, contributions of every update, what they come to, and how far to trust them."""
