"""The data card as a page."""
