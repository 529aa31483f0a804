"""The card of one image: what all questions say of it, on one page."""
