"""Shards that are read from an object store or web server, or through a copy on the disk of this node."""
