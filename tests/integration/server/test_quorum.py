"""Who is waited for, and for how long: a real server, real daemons, some of them away."""

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.studies.tiny_study import Said

from wardround.client.policy.approvals import decide
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import load_model
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.local_federation.processes import LocalFederation
from wardround.simulations.local_federation.run import write_trial_policy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
SITES = ("north", "south", "east", "west")
HERE = SITES[:2]
Command = Callable[..., Said]
_PATIENCE_SECONDS = 120.0


def make_study(name: str, minimum_sites: int = 2) -> Study:
    return parse_study(
        {
            "study": {"name": name, "task": "classification"},
            "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "x"}]},
            "model": {"network": "mlp", "features": []},
            "training": {"optimiser": "sgd", "learning_rate": 0.1, "local_steps": 2},
            "federation": {"rounds": 2, "minimum_sites": minimum_sites},
        }
    )


def write_site(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text(f'name = "{folder.name}"\n', encoding="utf-8")
    drawn = random.Random(folder.name)
    rows = [f"p{number},{'ab'[number % 2]},{drawn.gauss(0, 1):.3f}" for number in range(60)]
    (folder / "manifest.csv").write_text("\n".join(["patient,label,x", *rows]), encoding="utf-8")
    write_trial_policy(folder, make_study("any"))
    return folder


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    root = tmp_path_factory.mktemp("q")
    with LocalFederation(root, {"OMP_NUM_THREADS": "1"}) as made:
        made.make_server()
        made.start_server()
        for name in SITES:
            made.join(write_site(root / name))
        made.start_site(root / "north")
        yield made


def start_sites(federation: LocalFederation) -> None:
    for site in HERE:
        try:
            federation.child(site)
        except KeyError:
            federation.start_site(place_of(federation, site))


def place_of(federation: LocalFederation, site: str) -> Path:
    return federation.server.parent / site


def submit(wardround: Command, federation: LocalFederation, study: Study, *options: str) -> str:
    path = federation.server.parent / f"{study.name}.toml"
    path.write_text(study.to_toml(), encoding="utf-8")
    said = wardround("study", "submit", path, "--server", federation.server, "--json", *options)
    return str(json.loads(said.out)["run"])


def summary_of(wardround: Command, federation: LocalFederation, run: str) -> dict[str, object]:
    said = wardround("runs", "show", run, "--server", federation.server, "--json")
    return dict(json.loads(said.out)["summary"])


def wait_for(holds: Callable[[], bool], seconds: float = _PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to that in time"
        time.sleep(0.2)


@pytest.mark.long
def test_a_run_waits_for_its_quorum_says_why_and_ends_with_the_names_of_who_was_missing(
    federation: LocalFederation, wardround: Command, tmp_path: Path
) -> None:
    study = make_study("quorum")
    for site in HERE:
        decide(place_of(federation, site), study.digest, "approved")
    run = submit(wardround, federation, study)
    wait_for(lambda: "1 of 4 are ready" in str(summary_of(wardround, federation, run)["message"]))
    time.sleep(11.0)  # longer than a run waits that has its quorum
    shown = wardround("runs", "show", run, "--server", federation.server).out
    assert "waiting for sites" in shown
    assert "south is not connected" in " ".join(shown.split())
    start_sites(federation)
    watched = wardround("runs", "watch", run, "--server", federation.server)
    assert watched.out.splitlines()[-1] == "finished without east, west"
    summary = summary_of(wardround, federation, run)
    assert (summary["state"], summary["without"]) == ("finished", ["east", "west"])
    listed = " ".join(wardround("runs", "list", "--server", federation.server).out.split())
    assert "without" in listed
    first = wardround("runs", "show", run, "--server", federation.server).out.splitlines()[0]
    assert first.endswith("finished without east, west")
    page = tmp_path / "report.html"
    wardround("runs", "report", run, "--server", federation.server, "--out", page)
    assert "Run quorum-1 finished without east, west; " in page.read_text()
    kept = tmp_path / "model"
    told = wardround("runs", "model", run, "--server", federation.server, "--out", kept)
    assert told.code == 0, told.err
    model = load_model(RunFolder(federation.server, run).model_path).parameters
    assert digest(load_model(kept / "weights.safetensors").parameters) == digest(model)
    card = (kept / "card.md").read_text()
    assert digest(model) in card
    assert "trained at: north (2 rounds), south (2 rounds); without east, west" in card
    again = wardround("runs", "model", "quorum-9", "--server", federation.server, "--out", kept)
    assert again.code == 2


@pytest.mark.long
def test_a_study_that_waits_blocks_none_that_is_ready_and_a_rejection_ends_it_at_once(
    federation: LocalFederation, wardround: Command
) -> None:
    start_sites(federation)
    nobodys, ready = make_study("nobodys"), make_study("ready")
    first = submit(wardround, federation, nobodys, "--site", "north", "--site", "south")
    wait_for(
        lambda: (
            "has not approved the study" in str(summary_of(wardround, federation, first)["message"])
        )
    )
    for site in HERE:
        decide(place_of(federation, site), ready.digest, "approved")
    second = submit(wardround, federation, ready, "--site", "north", "--site", "south")
    assert wardround("runs", "watch", second, "--server", federation.server).code == 0
    assert summary_of(wardround, federation, first)["state"] == "waiting for sites"
    for site in HERE:
        decide(place_of(federation, site), nobodys.digest, "rejected")
    wait_for(lambda: summary_of(wardround, federation, first)["state"] == "failed", 60.0)
    message = str(summary_of(wardround, federation, first)["message"])
    assert "north has rejected the study; south has rejected the study" in message


def test_a_site_whose_policy_refuses_what_it_approved_is_not_waited_for_and_told_so(
    federation: LocalFederation, wardround: Command
) -> None:
    start_sites(federation)
    study = make_study("contradiction")
    for site in HERE:
        decide(place_of(federation, site), study.digest, "approved")
    policy = place_of(federation, "south") / "policy.toml"
    policy.write_text("", encoding="utf-8")  # the defaults of a hospital
    run = submit(wardround, federation, study, "--site", "north", "--site", "south")
    wait_for(lambda: summary_of(wardround, federation, run)["state"] == "failed", 60.0)
    message = str(summary_of(wardround, federation, run)["message"])
    assert "south has a policy that does not allow the study" in message
    assert "north" not in message


# --- What our own commands write ------------------------------------------------------------------
def write_images(folder: Path, patients: int = 60) -> None:
    """Write a manifest as the template wants it, with pictures of two brightnesses."""
    drawn, rows = np.random.default_rng(len(folder.name)), ["patient,image,label"]
    for number in range(patients):
        label = ("normal", "abnormal")[number % 2]
        pixels = drawn.normal(80 + 60 * (number % 2), 20, (16, 16)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"p{number},{number}.png,{label}")
    (folder / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")


@pytest.fixture
def newcomers(tmp_path: Path) -> Iterator[LocalFederation]:
    """Two sites that have done nothing but join: their policy is the one that joining writes."""
    with LocalFederation(tmp_path, {"OMP_NUM_THREADS": "1"}) as made:
        made.make_server()
        made.start_server()
        for name in HERE:
            made.join(tmp_path / name)
            write_images(tmp_path / name)
            made.start_site(tmp_path / name)
        yield made


@pytest.mark.long
def test_a_study_of_study_new_trains_at_sites_that_joined_and_approved_or_both_are_told_why(
    newcomers: LocalFederation, wardround: Command
) -> None:
    root, server = newcomers.server.parent, ("--server", newcomers.server)
    ends = {}
    for name, options in (("private", ["--private"]), ("plain", [])):
        path = root / f"{name}.toml"
        assert wardround("study", "new", path, *options).code == 0
        text = path.read_text().replace('"my-study"', f'"{name}"')
        path.write_text(text.replace("rounds = 10", "rounds = 2"), encoding="utf-8")
        done = json.loads(wardround("study", "submit", path, *server, "--json").out)
        run = str(done["run"])
        for site in HERE:
            approve_when_asked(wardround, root / site, str(done["digest"]))
        assert wardround("runs", "watch", run, *server).code in (0, 3)
        ends[name] = summary_of(wardround, newcomers, run)
    assert ends["private"]["state"] == "finished", ends["private"]["message"]
    assert ends["private"]["without"] == []
    assert ends["plain"]["state"] == "failed"
    # The first site that says so ends it: the quorum of two cannot be met any more.
    told = [f"{site} has a policy that does not allow the study" for site in HERE]
    assert any(one in str(ends["plain"]["message"]) for one in told)
    refused = [wardround("site", "audit", "show", root / site).out for site in HERE]
    assert any("privacy" in shown for shown in refused)


def approve_when_asked(wardround: Command, site: Path, asked: str) -> None:
    wait_for(lambda: asked in wardround("site", "pending", site, "--json").out)
    assert wardround("site", "approve", asked, "--site", site).code == 0
