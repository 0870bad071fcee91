"""The commands `simulate`, `split`, `sweep`, `attack`, `data` and `federation try`."""
