"""The loop, its two tasks, losses, schedule, guards, callbacks."""
