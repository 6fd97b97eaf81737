"""Action heads: modules that turn hidden states of the language model into an action chunk."""
