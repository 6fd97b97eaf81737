"""What a model starts from and leaves as."""
