"""`pokevla eval`: evaluate a recipe, or compare what was evaluated."""
