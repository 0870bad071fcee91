"""What operators and a server say to each other: ``operators.proto`` and its messages."""
