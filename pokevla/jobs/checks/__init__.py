"""What any start of a job checks: `train`, `submit` and `validate` alike."""
