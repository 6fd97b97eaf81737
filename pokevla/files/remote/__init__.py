"""Files of object stores and web servers, read through fsspec."""
