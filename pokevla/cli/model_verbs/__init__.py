"""`pokevla model` and `pokevla models`: summary, import and export, downloads."""
