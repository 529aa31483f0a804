"""Question 1: what are the relevant features, from how little data?"""
