"""`pokevla demo`: pipelines of commands."""
