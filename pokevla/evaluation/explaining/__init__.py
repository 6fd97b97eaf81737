"""`pokevla explain`: pictures of what a policy looks at in a stored episode or in a trial."""
