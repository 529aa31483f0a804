"""The page of question 1."""
