"""The report of a run: did each hospital gain from training together?"""

from typing import TYPE_CHECKING

from wardround.common.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from wardround.simulations.report.formats.writing import write_report

__all__ = ["write_report"]

# A live page of a run is in this room too, and must not wait for torch.
__getattr__, __dir__ = lazy_exports(
    __name__, {"write_report": "wardround.simulations.report.formats.writing"}
)
