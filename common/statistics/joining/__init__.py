"""Is a hospital better off in the federation, and what does it add? Numbers in, a word out."""
