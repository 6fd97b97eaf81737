"""How replies are read: the rules of the official scorers, and strict ones."""
