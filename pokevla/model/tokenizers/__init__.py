"""The small tokenizer of the presets tiny and mini, and the script that builds it."""
