"""The page of question 4."""
