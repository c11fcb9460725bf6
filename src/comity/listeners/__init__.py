"""Who watches a run: progress in a terminal, TensorBoard, MLflow; each a function of one event."""
