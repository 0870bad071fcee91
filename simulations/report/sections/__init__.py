"""The report's sections of evidence, each a file that makes one :class:`Section` or none."""
