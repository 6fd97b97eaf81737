"""A synthetic twin of the published question sets, in the formats in which they are published."""
