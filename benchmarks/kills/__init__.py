"""Faults: runs, workers, schedulers and servers are killed at random moments, and every byte is compared afterwards."""
