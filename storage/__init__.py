"""What is kept: stores, stages and their formats."""
