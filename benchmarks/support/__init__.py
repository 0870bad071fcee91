"""What the benchmarks share: data, processes, and how they are watched."""
