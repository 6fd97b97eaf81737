"""One tar + index format, shared by datasets and feature caches."""
