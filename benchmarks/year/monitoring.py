"""The followed hospital's monitoring: a reference, the images of each week, and what it says."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.year.command import answer, command
from benchmarks.year.hospitals import REFERENCE, WEEKLY
from benchmarks.year.images import Archive, Scanner, write_inputs
from wardround.client.clinic.monitoring.labels import Performance, performance_of, read_labels
from wardround.client.clinic.monitoring.store import open_monitor
from wardround.client.site.folder import open_site
from wardround.common.models.model_folder import open_model_folder

FALSE_ALARMS = 0.05  # expected in a year: the script has to end well in 19 of 20


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of a week.

    Attributes:
        alarms: A sentence each; none where all is quiet.
        performance: Of the model in use on the week's patients, by labels that came later.
    """

    period: str
    verdict: str
    alarms: tuple[str, ...]
    performance: Performance


class Ward:
    """Where the hospital's new images come from, and the site folder that they are counted in.

    Attributes:
        scanner: Which one stands there now.
    """

    def __init__(self, site: Path, folder: Path, archive: Archive) -> None:
        folder.mkdir()
        self.site = site
        self.scanner: Scanner = "A"
        self._folder, self._archive = folder, archive
        self._references: dict[Scanner, Path] = {}

    def set_reference(self, model: Path) -> int:
        """Set a reference for a model: images of the scanner of now that no model was trained on.

        Returns:
            Of how many images.
        """
        if self.scanner not in self._references:
            some = self._archive.take(REFERENCE, self.scanner)
            path = self._folder / f"reference-{self.scanner}.csv"
            self._references[self.scanner] = write_inputs(path, some)
        inputs = self._references[self.scanner]
        found = answer(
            *("site", "monitor", "reference", self.site, inputs, "--model", model),
            *("--false-alarms", FALSE_ALARMS, "--device", "cpu"),
        )
        return int(found["cases"])

    def look(self, period: str, model: Path) -> Looked:
        """Count a week's images, look at the week, and tell how well the model did on them."""
        some = self._archive.take(WEEKLY, self.scanner)
        inputs = write_inputs(self._folder / f"{period}.csv", some)
        words = (self.site, inputs, "--model", model, "--period", period, "--device", "cpu")
        found = answer("site", "monitor", "add", *words, codes=(0, 1))
        looked = [*found["looked_at"]]
        looked += answer("site", "monitor", "close", self.site, codes=(0, 1))["looked_at"]
        entry = next(one for one in looked if one["period"] == period)
        return Looked(
            period, entry["verdict"], (*entry["alarms"],), self._performance(inputs, model)
        )

    def acknowledge(self, reason: str) -> str:
        """Close the open alarms, with the reason."""
        return command("site", "monitor", "acknowledge", self.site, "--reason", reason).strip()

    def page(self, out: Path) -> None:
        """Write the monitoring's own page."""
        command("site", "monitor", "page", self.site, "--out", out)

    def _performance(self, inputs: Path, model: Path) -> Performance:
        """Labels come later, and are only looked at here: to give them is a look of its own."""
        opened = open_model_folder(model)
        monitor = open_monitor(open_site(self.site), opened.digest)
        truths, _ = read_labels(monitor, inputs, opened.study)
        known = {truth.key: truth for truth in truths}
        cases = [one for some in monitor.cases().values() for one in some]
        found = performance_of(cases, known)
        if found is None:
            msg = f"no image of {inputs} was counted."
            raise RuntimeError(msg)
        return found
