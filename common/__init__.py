"""What both sides must agree on; imports none of the other folders."""

from typing import TYPE_CHECKING

from wardround.common.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from wardround.common.errors import (
        AuditError,
        DataError,
        GuardError,
        InputError,
        ModelError,
        PolicyError,
        RunError,
        StudyError,
        WardroundError,
    )
    from wardround.common.metrics.task_sums import MetricValue
    from wardround.common.models.networks.registry import build_network
    from wardround.common.study.loading import parse_study, with_changes
    from wardround.common.study.registry import METRICS, NETWORKS
    from wardround.common.study.study import Study
    from wardround.common.study.variants import without_privacy

__all__ = [
    "METRICS",
    "NETWORKS",
    "AuditError",
    "DataError",
    "GuardError",
    "InputError",
    "MetricValue",
    "ModelError",
    "PolicyError",
    "RunError",
    "Study",
    "StudyError",
    "WardroundError",
    "build_network",
    "parse_study",
    "with_changes",
    "without_privacy",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "AuditError": "wardround.common.errors",
        "DataError": "wardround.common.errors",
        "GuardError": "wardround.common.errors",
        "InputError": "wardround.common.errors",
        "ModelError": "wardround.common.errors",
        "PolicyError": "wardround.common.errors",
        "RunError": "wardround.common.errors",
        "StudyError": "wardround.common.errors",
        "WardroundError": "wardround.common.errors",
        "METRICS": "wardround.common.study.registry",
        "MetricValue": "wardround.common.metrics.task_sums",
        "NETWORKS": "wardround.common.study.registry",
        "Study": "wardround.common.study.study",
        "build_network": "wardround.common.models.networks.registry",
        "parse_study": "wardround.common.study.loading",
        "with_changes": "wardround.common.study.loading",
        "without_privacy": "wardround.common.study.variants",
    },
)
