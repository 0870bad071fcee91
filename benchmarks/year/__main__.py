"""A year in a hospital, and whether it went as it should.

    python -m benchmarks.year --out runs/year

Three hospitals train a model; one of them uses and watches it, week by week. Its scanner is
replaced, its readers correct, two studies go on from the first, a hospital joins and leaves. Each
step is the command that a user types. The end is ``report.html``, with ``report.json`` beside it;
the exit code is 1 where something was not as it had to be.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks.support.processes import machine
from benchmarks.year.calendar import LEAST_WEEKS, calendar_of
from benchmarks.year.command import YearFailedError
from benchmarks.year.diary import Diary
from benchmarks.year.images import Archive, drawn_images, pneumonia_images
from benchmarks.year.report import page_of
from benchmarks.year.weeks import Year

_DRAWN, _MOST_WEEKS = 5_000, 52


def main() -> None:
    """Live through the year, write the report, and say what was not as it had to be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/year"), help="A new folder.")
    parser.add_argument("--weeks", type=int, default=_MOST_WEEKS)
    parser.add_argument("--data-root", type=Path, help="PneumoniaMNIST; else images are drawn.")
    parser.add_argument("--json", action="store_true", help="Print report.json.")
    asked = parser.parse_args()
    if not LEAST_WEEKS <= asked.weeks <= _MOST_WEEKS:
        parser.error(f"--weeks {asked.weeks}: give {LEAST_WEEKS} to {_MOST_WEEKS}.")
    if asked.out.exists():
        parser.error(f"{asked.out} exists already: choose another --out.")
    sys.exit(_live(asked.out.resolve(), asked.weeks, asked.data_root, asked.json))


def _live(out: Path, weeks: int, data_root: Path | None, as_json: bool) -> int:
    began = time.monotonic()
    told = sys.stderr if as_json else sys.stdout

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", file=told, flush=True)

    out.mkdir(parents=True)
    os.environ["WARDROUND_CACHE"] = str(out / "cache")
    say(machine())
    calendar = calendar_of(weeks)
    try:
        found = drawn_images(_DRAWN) if data_root is None else pneumonia_images(data_root)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    year = Year(out, Archive(out / "images", *found), calendar, say)
    diary = year.diary
    try:
        year.live()
    except (YearFailedError, RuntimeError) as error:
        diary.expect(f"the year goes on to its end: {error}", is_met=False)
    diary.facts |= {
        "Images": "drawn" if data_root is None else "PneumoniaMNIST",
        "Took": f"{time.monotonic() - began:.0f} s",
        "Machine": machine(),
    }
    return _report(diary, page_of(diary, calendar), out, as_json)


def _report(diary: Diary, page: str, out: Path, as_json: bool) -> int:
    content = json.dumps(diary.as_json(), indent=2)
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "report.json").write_text(content + "\n", encoding="utf-8")
    if as_json:
        print(content)
    else:
        print(f"Report: {out / 'report.html'}")
    for text in diary.unmet:
        print(f"Not as it had to be: {text}", file=sys.stderr)
    return int(bool(diary.unmet))


if __name__ == "__main__":
    main()
