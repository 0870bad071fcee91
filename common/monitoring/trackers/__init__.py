"""Trackers of experiments: MLflow, TensorBoard, Weights & Biases, each told what it has not yet."""
