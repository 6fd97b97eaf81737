"""One tar + index format, shared by data sets and feature caches."""
