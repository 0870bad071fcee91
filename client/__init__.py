"""One hospital: its data, its training, its last word on what leaves."""

from typing import TYPE_CHECKING

from wardround.common.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from wardround.client.clinic.local_training import LocalTraining, train_locally
    from wardround.client.data.cohorts import open_cohorts
    from wardround.client.doctor.doctor import examine
    from wardround.client.policy.policy import Policy, open_policy
    from wardround.client.site.folder import Site, open_site

__all__ = [
    "LocalTraining",
    "Policy",
    "Site",
    "examine",
    "open_cohorts",
    "open_policy",
    "open_site",
    "train_locally",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "LocalTraining": "wardround.client.clinic.local_training",
        "Policy": "wardround.client.policy.policy",
        "Site": "wardround.client.site.folder",
        "examine": "wardround.client.doctor.doctor",
        "open_cohorts": "wardround.client.data.cohorts",
        "open_policy": "wardround.client.policy.policy",
        "open_site": "wardround.client.site.folder",
        "train_locally": "wardround.client.clinic.local_training",
    },
)
