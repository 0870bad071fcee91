"""What a task does with examinations and predictions: one file a task, behind one protocol."""
