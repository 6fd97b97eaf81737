"""Whether trials show and ask what their policies were trained on, and what follows where a recipe leaves it open."""
