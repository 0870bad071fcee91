"""The operator's page of a run says what the server knows, and loads nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from wardround.common.errors import InputError
from wardround.common.study.loading import parse_study
from wardround.server.checkpoints.evidence import EvidenceRow
from wardround.server.operators.messages import (
    Refusal,
    RoundReport,
    RunDetails,
    RunRecord,
    RunSummary,
    SitePart,
    SiteValue,
)
from wardround.server.operators.report import write_report
from wardround.server.operators.report.page import page_of
from wardround.server.operators.run_summaries import count_refusals, ranges
from wardround.server.rounds.evaluation import ALL_SITES, MEAN_OF_SITES

STUDY = {
    "study": {"name": "tiny", "task": "classification"},
    "data": {"kind": "table", "classes": ["no", "yes"], "covariates": [{"name": "a"}]},
    "model": {"network": "mlp", "features": []},
    "training": {"optimiser": "sgd", "local_steps": 4},
    "federation": {"rounds": 4},
}
PRIVATE = {"mode": "patient", "epsilon": 50.0, "sampling_rate": 0.5, "expected_patients": 12}
AWAY = "the site <b>is</b> not connected"


def a_round(number: int, *sites: str, away: str = "") -> RoundReport:
    refusals = (Refusal(away, AWAY, "training", 1),) if away else ()
    return RoundReport(number, number - 1, 2.0, 0.5 + number / 10, sites, refusals)


def a_record(together: str = ALL_SITES, private: bool = False, **summary: object) -> RunRecord:
    history = (
        a_round(1, "north", "south"),
        a_round(2, "north", away="south"),
        a_round(3, "north", away="south"),
        a_round(4, "north", "south"),
    )
    facts = RunSummary(
        **{
            **{"run": "tiny-1", "study": "tiny", "digest": "d" * 64, "state": "finished"},
            **{"message": "", "round": 4, "rounds": 4, "metric": "auroc", "value": 0.9},
            **{"submitted": 1.0, "started": 2.0, "ended": 3.0},
            **summary,
        }
    )
    details = RunDetails(
        facts, ("north", "south"), 2, "a round waits 300 s", history, count_refusals(history)
    )
    parts = [
        SitePart(site, one.round, 0.0, 2_000_000, 500) for one in history for site in one.sites
    ]
    parts = [replace(part, seconds=1.5) if part.site == "north" else part for part in parts]
    values = [SiteValue(together, n, "validation", 0.5 + n / 10) for n in range(4)]
    values += [SiteValue("north", n, "validation", None if n == 2 else 0.6) for n in range(4)]
    study = parse_study({**STUDY, **({"privacy": PRIVATE} if private else {})})
    return RunRecord(details, study.to_toml(), "0.1.0", tuple(parts), tuple(values))


def words_of(page: str) -> str:
    """Return a page's text, without its tags."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(page)
    return " ".join(" ".join(found).split())


def test_the_page_says_who_took_part_in_which_round_and_why_not() -> None:
    words = words_of(page_of(a_record()))
    assert "south 2 of 4" in words
    assert f"south training 2-3 {AWAY}" in words
    assert "north 4 of 4" in words
    assert f"round 2: {AWAY}" in words
    assert "A round waits 300 s." in words


def test_the_page_says_bytes_and_seconds_where_a_site_lets_them_out() -> None:
    words = words_of(page_of(a_record()))
    assert "north 4 8.00 MB 2.0 kB 1.5" in words
    assert "south 2 4.00 MB 1.0 kB not let out" in words


def test_a_mean_of_sites_is_not_shown_as_the_metric_of_all_patients() -> None:
    assert "not the metric of all patients" in words_of(page_of(a_record(MEAN_OF_SITES)))
    assert "not the metric of all patients" not in words_of(page_of(a_record(ALL_SITES)))


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = page_of(a_record(message="<script>alert(1)</script>"))
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)\s*=|url\(|@import", page)
    assert "<b>is</b>" not in page


def test_what_a_private_run_has_spent_stands_beside_its_promise() -> None:
    words = words_of(page_of(a_record(private=True)))
    spent = {
        site: float(value)
        for site, value in re.findall(
            r"(\w+): \d rounds were counted, .*?epsilon = ([\d.]+)", words
        )
    }
    assert 0 < spent["south"] < spent["north"] <= 50.1
    assert "the hospital's own ledger" in words
    assert "no differential privacy" in words_of(page_of(a_record()))


def test_a_run_that_has_not_begun_has_a_page_too(tmp_path) -> None:
    record = a_record(state="queued", round=0, started=None, ended=None, message="waits")
    empty = replace(
        record, details=replace(record.details, history=(), refusals=()), parts=(), values=()
    )
    write_report(empty, tmp_path / "page.html")
    assert "No metric was measured" in (tmp_path / "page.html").read_text()


def test_a_page_that_cannot_be_written_is_refused_in_words(tmp_path) -> None:
    with pytest.raises(InputError, match="choose another file with --out"):
        write_report(a_record(), tmp_path / "absent" / "page.html")


def test_a_line_is_broken_where_a_site_was_not_measured() -> None:
    page = page_of(a_record())
    (path,) = re.findall(r'<path class="stroke" d="([^"]+)"[^>]*><title>north</title>', page)
    assert path.count("M") == 2  # rounds 0 and 1, and then 3
    (path,) = re.findall(r'<path class="stroke" d="([^"]+)"[^>]*><title>all sites</title>', page)
    assert path.count("M") == 1


def test_the_numbers_of_the_chart_stand_in_a_table_too() -> None:
    words = words_of(page_of(a_record()))
    rows = "0 0.5000 0.6000 1 0.6000 0.6000 2 0.7000 – 3 0.8000 0.6000"
    assert f"round all sites north {rows}" in words


def test_a_site_whose_name_is_markup_is_shown_as_text() -> None:
    record = a_record()
    name = "<img src=x onerror=alert(1)>"
    values = tuple(replace(one, site=name) if one.site == "north" else one for one in record.values)
    page = page_of(replace(record, values=values))
    assert "<img" not in page
    assert name in words_of(page)


def test_rounds_are_written_as_people_do() -> None:
    assert ranges([7, 3, 2, 1, 2]) == "1-3, 7"
    assert ranges([]) == ""


EVIDENCE = (
    EvidenceRow("", "north", "", "told", patients=60, note="60 test patients"),
    EvidenceRow("", "south", "", "refused", note=AWAY),
    EvidenceRow("intervals", "all sites", "yes", "auroc", 0.8, 0.65, 0.9, 0.03, None, 60),
    EvidenceRow("intervals", "north", "yes", "recall", note="too few patients"),
    EvidenceRow("calibration", "north", "0.5-0.6", "share right", 0.7, expected=0.55, patients=40),
)


def test_what_left_as_evidence_is_shown_with_intervals_and_what_rounding_lost() -> None:
    record = a_record()
    assert "Evidence" not in page_of(record), "a run without it has no such section"
    page = page_of(replace(record, details=replace(record.details, evidence=EVIDENCE)))
    words = words_of(page)
    assert "all sites yes auroc 0.800 0.650 to 0.900 0.030 60" in words
    assert "north yes recall – – – – too few patients" in words
    assert "0.5-0.6 share right 0.700 – – 40 mean score 0.550" in words
    assert "south the site <b>is</b> not connected" in words
    assert "<b>is</b>" not in page
