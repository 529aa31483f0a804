"""The page of question 3."""
