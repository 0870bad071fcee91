"""The story of the year: one week after the other, as the followed hospital lives it."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.year.calendar import Calendar
from benchmarks.year.chapters import (
    BUDGET,
    Trained,
    go_on,
    promote,
    read_queue,
    train,
    withdraw,
)
from benchmarks.year.command import answer
from benchmarks.year.diary import Diary, Kind, Week
from benchmarks.year.hospitals import FOLLOWED, LATE, OTHERS, ROUNDS, Hospitals, study_text
from benchmarks.year.images import SCANNERS, Archive
from benchmarks.year.left import corrections_trained_on, what_left
from benchmarks.year.monitoring import Looked, Ward

Say = Callable[[str], None]
_LEAST_FALL = 0.0005  # smaller ones are printed as 0
_LATE_ROUND = 3  # of the third study: the late hospital's first


class Year:
    """A year of the followed hospital.

    Attributes:
        diary: What happened so far.
    """

    def __init__(self, folder: Path, archive: Archive, calendar: Calendar, say: Say) -> None:
        self.diary = Diary()
        self._folder, self._calendar, self._say = folder, calendar, say
        self._archive, self._hospitals = archive, Hospitals(folder, archive)
        self._shelf, self._runs = folder / "in-use", list[Trained]()
        self._week = 1
        self._awaited = range(calendar.scanner, calendar.scanner + 3)  # an alarm, in these weeks

    def live(self) -> None:
        """Live through all weeks.

        Raises:
            YearFailedError: A command did not do what the story needs of it.
        """
        self._begin()
        happens = {
            self._calendar.scanner: self._new_scanner,
            self._calendar.readers: self._read,
            self._calendar.second: self._second,
            self._calendar.third: self._third,
            self._calendar.leaving: self._leave,
            self._calendar.leaving + 1: self._without,
        }
        for week in range(1, self._calendar.weeks + 1):
            self._week = week
            if week in happens:
                happens[week]()
            self._look()
        self._end()

    def _tell(self, kind: Kind, text: str) -> None:
        self.diary.tell(self._week, kind, text)
        self._say(f"week {self._week}: {text}")

    def _begin(self) -> None:
        self._hospitals.begin()
        study = self._folder / "first.toml"
        study.write_text(study_text(self._hospitals.manifest("examinations-1")), encoding="utf-8")
        first = train(study, self._folder / "first")
        self._ward = Ward(first.site, self._folder / "weeks", self._archive)
        self._use(first)
        names = f"{', '.join((FOLLOWED, *OTHERS[:-1]))} and {OTHERS[-1]}"
        self._tell("model", f"{names} trained the first model (AUROC {first.auroc:.3f}); in use.")
        count = self._ward.set_reference(first.model)
        self.diary.facts["Reference of the monitoring"] = f"{count} images that no model has seen"

    def _use(self, trained: Trained) -> str:
        """Put a run's model into use; say which site falls most by it."""
        falls = promote(trained, self._shelf)
        self._runs.append(trained)
        self._in_use = trained
        beyond = [one for one in falls if one["fall"] > one["margin"]]
        self.diary.expect(f"{trained.name}: no hospital falls beyond its margin", not beyond)
        if not falls:
            return ""
        most = max(falls, key=lambda one: one["fall"])
        if most["fall"] < _LEAST_FALL:
            return "; no hospital falls by it"
        change = f"{-most['fall']:+.3f}".replace("-", "\u2212")
        return f"; at worst {change} ({most['site']}, wave {most['wave']})"

    def _look(self) -> None:
        looked = self._ward.look(self._calendar.period(self._week), self._in_use.model)
        found = looked.performance
        self.diary.weeks.append(
            Week(
                *(self._week, self._in_use.name, SCANNERS[self._ward.scanner], found.cases),
                *(found.auroc, found.accuracy, looked.verdict),
            )
        )
        if looked.alarms:
            self._alarm(looked)

    def _alarm(self, looked: Looked) -> None:
        for text in looked.alarms:
            self._tell("alarm", f"ALARM: {text}")
        new, said = SCANNERS["B"], " ".join(looked.alarms)
        if self._week not in self._awaited:
            self._ward.acknowledge("looked at: nothing has changed")
            self._tell("alarm", "Acknowledged: nothing has changed, it was a false alarm.")
            return
        self._awaited = range(0)
        is_told = new in said and f"since {self._calendar.period(self._week)[:6]}" in said
        self.diary.expect("the alarm names the new scanner and since when", is_told)
        self._ward.acknowledge(f"{new} was put in place of {SCANNERS['A']}")
        count = self._ward.set_reference(self._in_use.model)
        self._tell("alarm", f"Acknowledged: it is {new}. {count} of its images are the reference.")

    def _new_scanner(self) -> None:
        self._ward.scanner = "B"
        self._tell("scanner", f"{SCANNERS['B']} replaces {SCANNERS['A']}; nobody says so.")

    def _read(self) -> None:
        unlabelled = self._hospitals.unlabelled()
        reading = read_queue(self._in_use, unlabelled, self._hospitals.truths)
        self.diary.expect("readers changed labels", reading.changed > 0)
        self._tell(
            "readers",
            f"Two readers read {reading.cases} cases: {BUDGET} that the model was least sure of, "
            f"and as many by lot; {reading.changed} labels are new or changed.",
        )
        self.diary.facts["What the readers' report says"] = " ".join(reading.told)

    def _second(self) -> None:
        self._hospitals.second_wave()
        second = go_on(self._in_use, self._hospitals.manifest("examinations-2"), "second")
        taken = corrections_trained_on(second.site)
        self.diary.expect("the second study trained on the readers' corrections", taken > 0)
        worst = self._use(second)
        self._ward.set_reference(second.model)
        self._tell(
            "model",
            f"The second study went on from the first with {SCANNERS['B']}'s images and the "
            f"readers' corrections (AUROC {second.auroc:.3f}); promoted{worst}.",
        )

    def _third(self) -> None:
        self._hospitals.third_wave()
        manifest = self._hospitals.manifest("examinations-3")
        late = f"simulation.late.{LATE}={_LATE_ROUND}"
        third = go_on(self._in_use, manifest, "third", late)
        worst = self._use(third)
        self._ward.set_reference(third.model)
        self._tell("hospital", f"{LATE} joined in round {_LATE_ROUND} of {ROUNDS}.")
        self._tell(
            "model", f"The third study (AUROC {third.auroc:.3f}) with {LATE}; promoted{worst}."
        )

    def _leave(self) -> None:
        third = self._in_use
        left = withdraw(third, LATE)
        self.diary.expect("the certificate is verified offline, and a forged one refused", True)
        self.diary.expect("the repeat is bit-identical to a run that never had it", left.is_exact)
        answer("runs", "rollback", "--shelf", self._shelf)
        self._in_use = self._runs[-2]
        self._repeat = left.repeat
        self._tell("hospital", f"{LATE} leaves; the model that it is in is revoked.")
        self._tell("model", f"Rolled back to the model of the {self._in_use.name} study.")
        self._tell(
            "hospital",
            f"{left.rounds} rounds are trained again without {LATE}; the certificate is verified "
            "offline, and refused with one byte changed.",
        )

    def _without(self) -> None:
        worst = self._use(self._repeat)
        self._ward.set_reference(self._repeat.model)
        self._tell(
            "model",
            f"The model without {LATE} (AUROC {self._repeat.auroc:.3f}); promoted{worst}.",
        )

    def _end(self) -> None:
        alarms = [week for week in self.diary.weeks if week.verdict == "alarm"]
        begin = self._calendar.scanner
        late = [week.number - begin for week in alarms]
        self.diary.expect("exactly one alarm in the year", len(alarms) == 1)
        self.diary.expect("it came within two weeks of the new scanner", late in ([0], [1], [2]))
        record = answer("runs", "promoted", "--shelf", self._shelf)
        kinds = [one["kind"] for one in record]
        wanted = ["promote", "promote", "promote", "rollback", "promote"]
        self.diary.expect("four promotions and one rollback", kinds == wanted)
        self.diary.left += what_left(self._runs)
        self._ward.page(self._folder / "monitoring.html")
