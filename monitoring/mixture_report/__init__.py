"""The report of a mixture as a page."""
