"""What a strategy asks for beside the loss: one file a local objective."""
