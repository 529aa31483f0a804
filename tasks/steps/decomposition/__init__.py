"""Stages of question 2: penultimate features, their histograms, decomposed layers and how far to trust them."""
