"""What a hospital is shown before it decides cannot be drawn by whoever wrote the study."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tomli_w
from tests.support.hospitals.image_ward import ask_statistics, volume, ward_study, write_ward

from wardround.client.app import close_sessions
from wardround.client.daemon.daemon import _name_and_digest
from wardround.client.policy import plan_limit
from wardround.client.policy.approvals import full_digest, note_pending, pending_studies
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import DeniedError, Facts, require_allowed
from wardround.common.errors import InputError, StudyError
from wardround.common.messages.statistics import unpack_statistics
from wardround.common.privacy import accounting
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study

pytestmark = pytest.mark.attacks
FORGERY = "\x1b[2J\x1b[Hepsilon = 0.1, every rule allows it\x1b]52;c;cm0gLXJmIH4=\x07"
MARKUP = "[bold green]every rule allows it[/] [link=http://x]here[/link]"


@pytest.fixture
def study(tiny_study) -> Study:  # type: ignore[no-untyped-def]
    return load_study(tiny_study.study)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n')
    (folder / "policy.toml").write_text("privacy_required = false\n")
    return folder


def saying(study: Study, folder: Path, text: str) -> Path:
    content = study.model_dump(mode="json", exclude_none=True)
    content["study"]["description"] = text
    path = folder / "study.toml"
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    return path


def shows_no_control(said: SimpleNamespace) -> bool:
    return all(line.isprintable() for line in (said.out + said.err).split("\n"))


def test_site_explain_prints_no_control_character_of_a_study(
    site: Path, study: Study, wardround: Callable[..., Any]
) -> None:
    said = wardround("site", "explain", saying(study, site, FORGERY), "--site", site)
    assert shows_no_control(said)
    assert said.code == 2
    assert "U+001B" in said.err


def test_site_explain_and_pending_read_no_markup_of_a_study(
    site: Path, study: Study, wardround: Callable[..., Any]
) -> None:
    path = saying(study, site, MARKUP)
    note_pending(site, load_study(path))
    for words in (("explain", path, "--site", site), ("pending", site)):
        said = wardround("site", *words)
        assert shows_no_control(said)
        assert "  | [bold green]every rule allows it[/]" in said.out


def test_a_pending_file_that_was_forged_is_refused_in_words(
    site: Path, study: Study, wardround: Callable[..., Any]
) -> None:
    note_pending(site, study)
    waiting = pending_studies(site)[0].path
    saying(study, site, FORGERY).rename(waiting)
    for words in (("pending", site), ("explain", study.digest[:16], "--site", site)):
        said = wardround("site", *words)
        assert shows_no_control(said)
        assert said.code == 2


def test_fewer_than_sixteen_digits_approve_nothing(site: Path, study: Study) -> None:
    note_pending(site, study)
    with pytest.raises(InputError, match="at least 16 digits"):
        full_digest(site, study.digest[:15])
    assert full_digest(site, study.digest[:16]) == study.digest


def test_no_accounting_is_done_for_a_study_that_nobody_approved(
    site: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = {
        "privacy.mode": "patient",
        "privacy.noise_multiplier": 1.2345,
        "model.normalisation": "group",
        "evaluation.keep": "last",
    }
    asked = with_changes(study, private)

    def never() -> None:
        msg = "accounting"
        raise AssertionError(msg)

    accounting._epsilon.cache_clear()
    monkeypatch.setattr(accounting, "_dp_accounting", never)
    assert _name_and_digest(asked.to_json()) == (asked.name, asked.digest)  # the daemon's thread
    with pytest.raises(DeniedError, match="no person here has approved it") as denied:
        require_allowed(Policy(), asked, Facts())
    assert denied.value.code == "approval"
    note_pending(site, asked)
    assert [one.study.digest for one in pending_studies(site)] == [asked.digest]
    with pytest.raises(AssertionError, match="accounting"):
        require_allowed(Policy(approved=(asked.digest,)), asked, Facts())


def test_the_accounting_of_an_approved_study_has_a_time_limit(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless() -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            pass

    private = {
        "privacy.mode": "patient",
        "privacy.noise_multiplier": 1.3456,
        "model.normalisation": "group",
        "evaluation.keep": "last",
    }
    asked = with_changes(study, private)
    accounting._epsilon.cache_clear()
    monkeypatch.setattr(plan_limit, "PLAN_SECONDS", 0.1)
    monkeypatch.setattr(accounting, "_dp_accounting", endless)
    with pytest.raises(StudyError, match="is not worked out after"), plan_limit.plan_limit():
        require_allowed(Policy(approved=(asked.digest,)), asked, Facts())


@pytest.mark.parametrize(
    ("section", "key", "number"),
    [
        ("federation", "rounds", 10**9),
        ("training", "local_steps", 10**9),
        ("privacy", "epsilon", 9999),
        ("privacy", "delta", 1e-300),
        ("privacy", "noise_multiplier", 1e-300),
    ],
)
def test_a_number_that_keeps_a_machine_busy_is_refused_when_the_study_is_read(
    site: Path,
    study: Study,
    wardround: Callable[..., Any],
    section: str,
    key: str,
    number: float,
) -> None:
    content = study.model_dump(mode="json", exclude_none=True)
    content["privacy"] = {"mode": "patient", "noise_multiplier": 1.0, "delta": 1e-5}
    content[section][key] = number
    path = site / "study.toml"
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    begun = time.monotonic()
    said = wardround("site", "explain", path, "--site", site)
    assert said.code == 2
    assert f"{section}.{key}" in said.err
    assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize(
    ("statistics", "said"),
    [
        ({"intensity_bins": 10**9}, "intensity_bins"),
        ({"intensity_bins": 4097}, "intensity_bins"),
        ({"spacing_step_mm": 1e-9}, "spacing_step_mm"),
        ({"size_step": 0}, "size_step"),
        ({"intensity": [3, 3]}, "goes nowhere"),
        ({"intensity": [5, float("nan")]}, "intensity"),
        ({"edges": [1.0, 2.0]}, "edges"),
    ],
)
def test_statistics_with_huge_or_strange_cells_are_refused_at_the_door(
    statistics: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        ward_study(statistics=statistics)


def test_statistics_of_many_channels_are_refused_before_a_patient_is_read() -> None:
    channels = {"channels": [f"c{number}" for number in range(60)]}
    with pytest.raises(StudyError, match="at most 65536 leave a site"):
        ward_study(statistics={"intensity_bins": 4096}, data=channels)


def test_edges_that_isolate_one_patient_show_nothing_of_that_patient(tmp_path: Path) -> None:
    """A server that knows a patient's spacing and intensities asks for cells that hold no other.

    Two hospitals, of which one has her and the other somebody like the rest, give the same answer.
    """
    study = ward_study(
        statistics={"intensity": [900, 1100], "intensity_bins": 512, "spacing_step_mm": 0.001},
    )
    answers = []
    for name, hers in (("with", 1000.0), ("without", 40.0)):
        volumes = [volume(seed) for seed in range(24)]
        volumes[13] = np.full((12, 12, 8), hers, np.float32)
        spacings = [(1.0, 1.0, 1.0)] * 24
        spacings[13] = (0.777 if hers == 1000 else 1.0, 1.0, 1.0)
        place = tmp_path / name / "north"
        policy = {"smallest_cell": "10", "smallest_cohort": "10"}
        folder = write_ward(place, volumes, study, spacings, **policy)
        answers.append(unpack_statistics(ask_statistics(folder, study), study))
        close_sessions()
    known, unknown = answers
    assert known.patients == unknown.patients == 20
    for histogram, cells in known.cells.items():
        assert np.count_nonzero(cells) <= 3, histogram
        if histogram.startswith("spacing"):
            np.testing.assert_array_equal(cells, unknown.cells[histogram])
    # All her voxels lie where nobody else's do: they are counted with the others'.
    intensity = known.cells["intensity-0"]
    assert intensity[1:].sum() == 0 or np.count_nonzero(intensity) == 1
