"""LIBERO environments, masks, the scripted expert and its demonstrations."""
