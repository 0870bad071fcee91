"""Experiments on one machine: public data split into sites, compared and reported."""

from typing import TYPE_CHECKING

from wardround.common.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from wardround.simulations.notebook.models import LoadedModel, load_model
    from wardround.simulations.notebook.result import SimulationResult, open_run
    from wardround.simulations.notebook.run import resume, simulate, simulate_rounds
    from wardround.simulations.notebook.studies import load_study
    from wardround.simulations.report.verdict import Verdict
    from wardround.simulations.run_files.events import (
        Event,
        RoundDone,
        SiteFailed,
        StageFinished,
        StageStarted,
    )
    from wardround.simulations.run_files.folder import MetricRow
    from wardround.simulations.studies import built_in_names

__all__ = [
    "Event",
    "LoadedModel",
    "MetricRow",
    "RoundDone",
    "SimulationResult",
    "SiteFailed",
    "StageFinished",
    "StageStarted",
    "Verdict",
    "built_in_names",
    "load_model",
    "load_study",
    "open_run",
    "resume",
    "simulate",
    "simulate_rounds",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Event": "wardround.simulations.run_files.events",
        "LoadedModel": "wardround.simulations.notebook.models",
        "MetricRow": "wardround.simulations.run_files.folder",
        "RoundDone": "wardround.simulations.run_files.events",
        "SimulationResult": "wardround.simulations.notebook.result",
        "SiteFailed": "wardround.simulations.run_files.events",
        "StageFinished": "wardround.simulations.run_files.events",
        "StageStarted": "wardround.simulations.run_files.events",
        "Verdict": "wardround.simulations.report.verdict",
        "built_in_names": "wardround.simulations.studies",
        "load_model": "wardround.simulations.notebook.models",
        "load_study": "wardround.simulations.notebook.studies",
        "open_run": "wardround.simulations.notebook.result",
        "resume": "wardround.simulations.notebook.run",
        "simulate": "wardround.simulations.notebook.run",
        "simulate_rounds": "wardround.simulations.notebook.run",
    },
)
