"""The page of question 2."""
