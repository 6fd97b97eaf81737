"""Process environment, DeepSpeed engine, collectives."""
