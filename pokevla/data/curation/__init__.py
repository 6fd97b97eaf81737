"""Published question sets for pre-training: read, checked by named rules, converted to one form."""
