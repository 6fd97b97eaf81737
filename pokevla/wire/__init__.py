"""What policy servers and their clients send each other, below both sides: arrays, pictures, messages, conventions."""
