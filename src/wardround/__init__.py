"""Federated learning for medical imaging across hospitals: no image leaves its ward.

The names below are what a notebook needs; ``docs/reference/python-api.md`` shows them at work. Each
is imported when it is first used.
"""

import os
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# A hospital's machine calls nobody that its engineer did not name. Flower and Ray read these when
# they are imported, so they are set here, before either can be; set, not offered as a default.
os.environ.update(
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
    RAY_USAGE_STATS_ENABLED="0",
)

from wardround.common.runtime.lazy import lazy_exports  # after the settings above

if TYPE_CHECKING:
    from wardround import data, privacy, strategies
    from wardround.client.clinic.local_training import LocalTraining, train_locally
    from wardround.client.site.folder import Site, open_site
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
    from wardround.simulations.notebook.models import LoadedModel, load_model
    from wardround.simulations.notebook.prediction import Predictions, predict
    from wardround.simulations.notebook.result import SimulationResult, open_run
    from wardround.simulations.notebook.run import Round, Rounds, resume, simulate, simulate_rounds
    from wardround.simulations.notebook.studies import Study, load_study
    from wardround.simulations.run_files.events import (
        RoundDone,
        SiteFailed,
        StageFinished,
        StageStarted,
    )
    from wardround.simulations.studies import built_in_names

__all__ = [
    "AuditError",
    "DataError",
    "GuardError",
    "InputError",
    "LoadedModel",
    "LocalTraining",
    "ModelError",
    "PolicyError",
    "Predictions",
    "Round",
    "RoundDone",
    "Rounds",
    "RunError",
    "SimulationResult",
    "Site",
    "SiteFailed",
    "StageFinished",
    "StageStarted",
    "Study",
    "StudyError",
    "WardroundError",
    "__version__",
    "built_in_names",
    "data",
    "load_model",
    "load_study",
    "open_run",
    "open_site",
    "predict",
    "privacy",
    "resume",
    "simulate",
    "simulate_rounds",
    "strategies",
    "train_locally",
]

_ERRORS = "wardround.common.errors"
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "AuditError": _ERRORS,
        "DataError": _ERRORS,
        "GuardError": _ERRORS,
        "InputError": _ERRORS,
        "LoadedModel": "wardround.simulations.notebook.models",
        "LocalTraining": "wardround.client.clinic.local_training",
        "ModelError": _ERRORS,
        "PolicyError": _ERRORS,
        "Predictions": "wardround.simulations.notebook.prediction",
        "Round": "wardround.simulations.notebook.run",
        "RoundDone": "wardround.simulations.run_files.events",
        "Rounds": "wardround.simulations.notebook.run",
        "RunError": _ERRORS,
        "SimulationResult": "wardround.simulations.notebook.result",
        "Site": "wardround.client.site.folder",
        "SiteFailed": "wardround.simulations.run_files.events",
        "StageFinished": "wardround.simulations.run_files.events",
        "StageStarted": "wardround.simulations.run_files.events",
        "Study": "wardround.simulations.notebook.studies",
        "StudyError": _ERRORS,
        "WardroundError": _ERRORS,
        "built_in_names": "wardround.simulations.studies",
        "data": "wardround.data",
        "load_model": "wardround.simulations.notebook.models",
        "load_study": "wardround.simulations.notebook.studies",
        "open_run": "wardround.simulations.notebook.result",
        "open_site": "wardround.client.site.folder",
        "predict": "wardround.simulations.notebook.prediction",
        "privacy": "wardround.privacy",
        "resume": "wardround.simulations.notebook.run",
        "simulate": "wardround.simulations.notebook.run",
        "simulate_rounds": "wardround.simulations.notebook.run",
        "strategies": "wardround.strategies",
        "train_locally": "wardround.client.clinic.local_training",
    },
)
