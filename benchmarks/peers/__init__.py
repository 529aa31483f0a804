"""Peers: layerlore's numbers next to those of captum, kronfluence, dattri, pyDVL, netrep and scikit-learn."""
