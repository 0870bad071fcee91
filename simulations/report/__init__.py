"""The report of a run: did each hospital gain from training together?"""

from wardround.simulations.report.formats.writing import write_report

__all__ = ["write_report"]
