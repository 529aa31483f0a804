"""Drawing of the project's own probing set, mini-Broden: images with the true label of every pixel."""
