"""The published models that recipes need, and how their files are downloaded."""
