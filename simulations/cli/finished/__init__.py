"""What the commands on a finished run do once their words are read."""
