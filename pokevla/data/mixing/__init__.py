"""From converted question sets to the mixture of a recipe: what is taken, in which amounts, and writing it."""
