"""The training loop, its two tasks, losses, optimizer, callbacks, saving and restoring."""
