"""What predicts anyway feeds the monitoring: the gateway study by study, ``predict`` at its end."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from wardround.client.clinic.inference.inputs import Input
from wardround.client.clinic.inference.prediction import Prediction
from wardround.client.clinic.inference.predictor import Predictor
from wardround.client.clinic.monitoring.case import Case
from wardround.client.clinic.monitoring.gathering import case_of_input, case_of_series
from wardround.client.clinic.monitoring.monitor import Added, add_cases, close_periods
from wardround.client.clinic.monitoring.store import MonitorFolder, open_monitor
from wardround.client.clinic.pacs.source import Source
from wardround.client.data.reading.image import Image
from wardround.client.site.folder import open_site
from wardround.common.errors import WardroundError

logger = logging.getLogger(__name__)


def _monitor_of(site: Path, predictor: Predictor) -> MonitorFolder:
    return open_monitor(open_site(site), predictor.digest, predictor.contract.name)


def watch_gateway(
    site: Path, predictor: Predictor
) -> Callable[[tuple[str, str], Source, Sequence[Image], Prediction], None]:
    """Return what counts each study that a gateway answers to the period that runs.

    A fault of the monitoring stops no answer: it is logged.

    Raises:
        InputError: The site has no reference of this model.
    """
    monitor = _monitor_of(site, predictor)

    def watch(
        series: tuple[str, str], source: Source, images: Sequence[Image], said: Prediction
    ) -> None:
        try:
            case = case_of_series(
                series,
                images,
                (said, source.datasets[0]),
                predictor.study,
                monitor.key_of,
            )
            add_cases(monitor, [case])
            for entry in close_periods(monitor):
                _log(entry["period"], entry["verdict"], entry["alarms"])
        except (WardroundError, OSError) as error:
            logger.warning("the monitoring did not count a study: %s", error)

    return watch


def _log(period: str, verdict: str, alarms: Sequence[str]) -> None:
    logger.info("monitoring: %s was looked at: %s", period, verdict)
    for words in alarms:
        logger.warning("monitoring ALARM %s: %s", period, words)


class Counted:
    """Counts what ``wardround predict`` says, and writes it when all is predicted."""

    def __init__(self, site: Path, predictor: Predictor) -> None:
        """Open the monitoring of a model.

        Raises:
            InputError: The site has no reference of this model.
        """
        self._monitor = _monitor_of(site, predictor)
        self._study = predictor.study
        self._cases: list[Case] = []

    def take(
        self, one: Input, images: Sequence[Image], prediction: Prediction, outside: bool
    ) -> None:
        """Keep the numbers of one prediction."""
        key_of = self._monitor.key_of
        self._cases.append(case_of_input(one, images, (prediction, outside), self._study, key_of))

    def write(self) -> Added:
        """Write them to the period that runs, and look at those that are over."""
        added = add_cases(self._monitor, self._cases)
        close_periods(self._monitor)
        return added
