"""The stages of question 1: the relevant features, and how little data shows them."""
