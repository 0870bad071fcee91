"""What a finished run or series says, with its intervals; its report is read for that once."""

from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.simulations.report.live.state import Outcome

REPORT = "report.html"


def outcome_of(folder: Path) -> Outcome:
    """Return the headline of a finished run and what it rests on, for each hospital."""
    from wardround.simulations.report.contents import read_contents
    from wardround.simulations.report.page import site_lines
    from wardround.simulations.report.wording import compose_headline, sentence_title

    has_report = (folder / REPORT).is_file()
    try:
        contents = read_contents(folder)
        verdict = contents.verdict_on(contents.metric)
        headline = compose_headline(contents, verdict)
        lines = site_lines(contents, verdict)
    except WardroundError as error:
        return Outcome(f"The run is finished. {error}", report=has_report)
    sites = tuple(
        (line.site, line.own, line.federated, line.pooled, line.gain, line.outcome)
        for line in lines
    )
    return Outcome(
        headline.sentence,
        headline.details,
        headline.tone,
        sentence_title(contents.metric),
        sites,
        has_report,
    )


def outcome_of_series(folder: Path) -> Outcome:
    """Return the headline of a finished series."""
    from wardround.simulations.report.pages.series_page import read_series_contents

    try:
        sentence = read_series_contents(folder).headline
    except WardroundError as error:
        sentence = f"The runs are finished. {error}"
    return Outcome(sentence, report=(folder / REPORT).is_file())
