"""The commands of README.md and of some pages do what the pages say they do."""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image
from tests.support.hospitals.image_ward import volume, ward_study, write_ward
from tests.support.page_commands import PATIENCE_SECONDS, blocks_of, run_command

from wardround.common.study.loading import load_study
from wardround.simulations.local_federation.processes import LocalFederation

pytestmark = [
    pytest.mark.pages,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
ROOT = Path(__file__).resolve().parents[2]
IMPORT = ROOT / "docs" / "how-to" / "import-images.md"
README, OWN_DATA = ROOT / "README.md", ROOT / "docs" / "tutorials" / "own-data.md"
PLAN = ROOT / "docs" / "how-to" / "plan-a-study.md"
HOW_TO = ROOT / "docs" / "how-to"
GENERALISATION = ROOT / "docs" / "how-to" / "test-generalisation.md"
# The page trains 12 and 3 rounds on 144 virtual patients, which takes minutes. The same
# with less:
LESS = "--rounds 1 --set simulation.options.patients=48 --set simulation.options.slices=2"
_NUMBER = re.compile(r"[+−-]?\d+(\.\d+)?")


def said_by(command: str, folder: Path) -> str:
    return run_command(command, folder, {"COLUMNS": "200"})


def without_numbers(text: str) -> str:
    """Return a text on one line, in which other patients or rounds change nothing."""
    return _NUMBER.sub("#", " ".join(text.split()))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a server's socket lies deep in it."""
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("words", ["wardround simulate", "wardround federation try"])
def test_a_command_of_the_readme_prints_what_the_readme_shows(words: str, folder: Path) -> None:
    command = next(block.strip() for block in blocks_of(README) if block.startswith(words))
    place = [block.strip() for block in blocks_of(README) if block.startswith("wardround")]
    printed = without_numbers(said_by(f"{command} {LESS}", folder))
    shown = blocks_of(README, "text")[place.index(command)]
    if words == "wardround simulate":  # who gains differs with fewer patients
        shown = "Dice on test" + shown.split("Dice on test")[1].split("The mean gain")[0] + "Report"
        assert (folder / "runs" / "first" / "report.html").stat().st_size > 0
    for part in re.split(r"\.\.\.|\n(?=\w+:|Report)", shown):
        assert without_numbers(part) in printed


def test_the_tutorial_on_own_data_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "make_pictures.py").write_text(blocks_of(OWN_DATA, "python")[0], encoding="utf-8")
    for block in blocks_of(OWN_DATA):
        if block.startswith("patient,"):
            head = (tmp_path / "manifest.csv").read_text(encoding="utf-8").splitlines()
            assert head[: len(block.splitlines())] == block.splitlines()
        else:
            said_by(f"set -e\n{block}", tmp_path)
    assert (tmp_path / "runs" / "own" / "report.html").exists()


@pytest.mark.parametrize("mode", ["none", "patient"])
def test_a_study_is_planned_over_a_server_and_daemons_as_the_page_says(
    folder: Path, mode: str
) -> None:
    """Real processes: the page's commands, with the names of this server, these sites, this run."""
    # 40 patients: with less the noise may hide them, and the plan is then refused in words.
    epsilon = 400.0 if mode == "patient" else 1.0
    statistics = {"intensity": [-500, 500], "epsilon": epsilon}
    asked = ward_study(mode, statistics, federation={"minimum_sites": 2})
    text = asked.to_toml().replace("ask = true", "ask = false")
    (folder / "study.toml").write_text(text, encoding="utf-8")
    hand_in, read, write = blocks_of(PLAN)[2:5]
    sites = folder / "t" / "sites"
    with LocalFederation(folder / "t", {"OMP_NUM_THREADS": "1"}) as federation:
        federation.make_server()
        federation.start_server()
        named = {"/srv/wardround": str(federation.server), "DIGEST": asked.digest}
        said = said_by(_with(hand_in, named), folder)
        named["RUN"] = next(re.finditer(r"--run (\S+)", said))[1]
        for place, name in enumerate(("north", "south")):
            volumes = [volume(seed + 100 * place) for seed in range(22)]
            caps = {"study_epsilon": "500.0", "lifetime_epsilon": "500.0"}
            write_ward(sites / name, volumes, asked, approved="[]", **caps)
            federation.join(sites / name)
            federation.start_site(sites / name)
            _await(lambda name=name: _is_pending(sites / name, asked.digest))  # type: ignore[misc]
            _, approve = read.strip().splitlines()
            said_by(_with(approve, {**named, "/srv/north": str(sites / name)}), folder)
        _await(lambda: _is_over(federation.server, named["RUN"], folder))
        said_by(_with(write, named), folder)
        for name in ("north", "south"):
            said_by(f"wardround site audit verify {sites / name}", folder)
    planned = load_study(folder / "planned.toml")
    assert not planned.statistics.ask
    assert planned.training.patch_size is not None
    if mode == "none":
        assert planned.training.patch_size == (12, 12, 8)
        assert planned.data.spacing == (1.0, 1.0, 1.0)
        assert planned.data.scaling is not None


def _with(command: str, named: dict[str, str]) -> str:
    for placeholder, name in named.items():
        command = command.replace(placeholder, name)
    return command


def _is_pending(site: Path, digest: str) -> bool:
    return (site / "state" / "pending" / f"{digest}.toml").exists()


def _is_over(server: Path, run: str, folder: Path) -> bool:
    return "finished" in said_by(f"wardround runs show {run} --server {server}", folder)


def _await(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.5)


def test_the_page_on_importing_images_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "make_dicom.py").write_text(blocks_of(IMPORT, "python")[0], encoding="utf-8")
    rules, study, *_ = blocks_of(IMPORT, "toml")
    (tmp_path / "import.toml").write_text(rules, encoding="utf-8")
    (tmp_path / "study.toml").write_text(study, encoding="utf-8")
    said = said_by(f"set -e\n{blocks_of(IMPORT)[0]}", tmp_path)
    assert "Imported 12 of 12 examinations, of 12 patients" in said
    written = b"".join(p.read_bytes() for p in (tmp_path / "north").rglob("*") if p.is_file())
    assert b"MRN0" not in written
    assert b"Jane" not in written
    assert (tmp_path / "runs" / "imported" / "report.html").exists()


def test_the_commands_on_generalisation_run_in_the_order_of_the_page(
    tmp_path: Path, shared_data: Path
) -> None:
    """With less training: 26 s on an idle machine."""
    less = "--set training.local_steps=2 --rounds 1 --threads 1 --engine in-process"
    for block in blocks_of(GENERALISATION):
        for line in block.replace("\\\n", " ").splitlines():
            command = f"{line} {less}" if " simulate heart-disease" in line else line
            said_by(f"WARDROUND_DATA={shared_data} {command}", tmp_path)
    kept = ("heart/measured.csv", "heart-seeds/report.html", "va/predictions.csv")
    assert all((tmp_path / "runs" / name).stat().st_size for name in kept)
    assert (tmp_path / "runs" / "heart-groups" / "groups.csv").stat().st_size > 0


def test_the_commands_on_evidence_of_the_readme_run_as_they_stand(
    tmp_path: Path, shared_data: Path
) -> None:
    """With less training and fewer cases."""
    pytest.importorskip("weasyprint", exc_type=OSError)  # it needs the system's Pango
    (block,) = (block for block in blocks_of(README) if "--leave-one-site-out" in block)
    said_by(f"wardround simulate brain-tissue --out runs/first {LESS}", tmp_path)
    for line in block.splitlines():
        less = " ".join(options for words, options in _LESS.items() if words in line)
        said_by(f"WARDROUND_DATA={shared_data} {line} {less}", tmp_path)
    left = ("left-out/measured.csv", "first/corruptions.csv", "first/report.pdf")
    assert all((tmp_path / "runs" / name).stat().st_size for name in left)


# What a page's command gets for a test: the last option of a kind wins.
_LESS = {
    "wardround simulate": "--rounds 1 --threads 1 --engine in-process",
    "training.adversarial": "--set training.adversarial.start_round=1",
    "wardround stress": "--max-cases 6 --steps 2 --restarts 1 --epsilons 4 --severities 1",
    "wardround explain-predictions": "--cases 1",
}


@pytest.mark.parametrize(
    ("page", "left"),
    [
        ("stress-a-model", ("xray/adversarial.csv", "hardened/corruptions.csv")),
        ("explain-predictions", ("skin/explanations/hires-cam.csv",)),
        ("calibrate-and-decide", ("xray/report.html",)),
        ("worth-joining", ("heart/contributions.csv", "heart/report.html")),
        ("document-a-model", ("first/report.md", "first/model-card.md")),
    ],
)
def test_the_commands_of_a_page_on_evidence_run_in_its_order(
    tmp_path: Path, shared_data: Path, page: str, left: tuple[str, ...]
) -> None:
    """With less training and fewer cases: 20 to 60 s each."""
    (tmp_path / "scans").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scans" / "one.png")
    for block in blocks_of(HOW_TO / f"{page}.md"):
        for line in block.replace("\\\n", " ").splitlines():
            if "[options]" in line:
                continue
            less = " ".join(options for words, options in _LESS.items() if words in line)
            command = f"{line.replace('~/data', str(shared_data))} {less}"
            said_by(f"WARDROUND_DATA={shared_data} {command}", tmp_path)
    assert all((tmp_path / "runs" / name).stat().st_size for name in left)
