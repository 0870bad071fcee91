"""The HTML report of a run: did each hospital gain from training together?"""

from wardround.simulations.report.page import write_report

__all__ = ["write_report"]
