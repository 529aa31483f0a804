"""Stages of question 2: penultimate features, their histograms, decomposed layers and their evaluations."""
