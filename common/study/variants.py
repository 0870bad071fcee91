"""Studies beside a study, which a comparison follows."""

from wardround.common.study.loading import with_changes
from wardround.common.study.sections.privacy import PrivacySection
from wardround.common.study.study import Study


def plain(study: Study) -> Study:
    """Return the study without its strategy: what a site that trains alone follows."""
    changes: dict[str, object] = {
        "evaluation.pack": (),  # nobody asks a comparison for what would leave
        "federation.strategy": "fedavg",
        "federation.share": None,
        "federation.personal": (),
        "federation.objective": None,
        "federation.aggregation": None,
        "federation.server_optimiser": None,
        "federation.options": {},
        "federation.secure_aggregation": False,
        "federation.masks": {},
    }
    return with_changes(study, changes)


def without_privacy(study: Study) -> Study:
    """Return the study without its privacy: what a comparison beside it follows."""
    defaults = PrivacySection().model_dump()
    changes: dict[str, object] = {f"privacy.{key}": value for key, value in defaults.items()}
    changes["evaluation.pack"] = ()
    return with_changes(study, changes)
