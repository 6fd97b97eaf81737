"""What watches over a running training."""
