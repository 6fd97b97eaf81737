"""Reading base models and the weights in checkpoints; writing exports."""
