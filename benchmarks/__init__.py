"""Speed and memory beside the floor and beside peers: ratios in one run, never timed tests."""
