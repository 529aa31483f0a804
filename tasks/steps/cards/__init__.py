"""The card of one image: the answers of all questions, joined."""
