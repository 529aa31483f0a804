"""Question 3: which concepts do neurons hold, and when in training did they come?"""
