"""The operators' live page: runs, rounds and sites as they are, and what may be done."""
