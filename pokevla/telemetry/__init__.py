"""How a job is seen from inside: logging, meters, TensorBoard and JSONL writers."""
