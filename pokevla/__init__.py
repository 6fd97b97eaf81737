"""PokeVLA: train, resume, evaluate and deploy pocket-sized vision-language-action models."""

__version__ = "0.1.0"
