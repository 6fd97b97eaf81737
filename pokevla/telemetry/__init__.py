"""How a job reports on itself: logs, metrics, TensorBoard, heartbeat, manifest."""
