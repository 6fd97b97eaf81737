"""Action heads: what turns hidden states of the language model into a chunk of actions."""
