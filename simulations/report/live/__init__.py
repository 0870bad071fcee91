"""The live page of a simulation: read from its run folder, by a process of its own."""
