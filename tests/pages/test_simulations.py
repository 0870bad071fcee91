"""The pages for researchers: each command on a small run, a study file or a folder of pictures."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pages.blocks import ROOT, blocks_of
from tests.pages.story import Place, Story, followed
from tests.support.studies.tiny_runs import write_tiny_study

pytestmark = [pytest.mark.pages, pytest.mark.slow]
# Less of everything: the pages' own runs take minutes. The last option of a kind wins.
_MACHINE = "--rounds 1 --threads 1 --engine in-process"
_SMALL = "--set simulation.options.slices=2 --set simulation.options.patients=48"
LESS = {
    "simulate brain-tissue": f"{_MACHINE} {_SMALL} --no-compare",
    "simulate pneumonia-xray": f"{_MACHINE} --no-compare --set simulation.options.patients=120",
    "sweep brain-tissue": f"--threads 1 {_SMALL}",
    "attack runs/xray": "--patients 1",
}
_SHORT = {
    "federation.rounds": 2,
    "simulation.compare": False,
    "simulation.options.patients": 48,
    "simulation.options.slices": 2,
}
_FIRST = "wardround simulate brain-tissue --out runs/first"
_PAGES = {
    "docs/concepts/attacks.md": ("xray/report.html",),
    "docs/how-to/read-a-report.md": ("first/report.pdf", "first/report.md"),
    "docs/how-to/simulate.md": ("first/report.html", "sweep/report.html"),
    "docs/reference/study-file.md": (),
    "docs/tutorials/first-simulation.md": ("second/report.html",),
}


@pytest.mark.parametrize("page", _PAGES)
def test_a_page_on_simulations_is_followed(page: str, place: Place, shared_data: Path) -> None:
    named = {"~/data": str(shared_data), "FOLDER": "runs/first", "RUN": "runs/first"}
    named |= {"show NAME": "show pneumonia-xray", "get STUDY": "get brain-tissue"}
    place.environment["WARDROUND_DATA"] = str(shared_data)
    with followed(page, place, named, LESS) as story:
        if page.endswith("read-a-report.md"):
            pytest.importorskip("weasyprint", exc_type=OSError)  # it needs the system's Pango
            place.run(f"{_FIRST} {LESS['simulate brain-tissue']}")
        if page.endswith("simulate.md"):
            follow_what_is_watched(story)
        if page.endswith("study-file.md"):  # only a private study promises something
            private = story.take("wardround study privacy")
            story.do("wardround study new")
            place.run(private.replace("study.toml", "heart-disease-private"))
        story.rest()
    assert all((place.folder / "runs" / name).stat().st_size for name in _PAGES[page])


def test_a_sequence_of_studies_is_followed(place: Place) -> None:
    less = {
        "simulate brain-tissue-scanners": _MACHINE,
        **{f"simulate {name}.toml": _MACHINE for name in ("second", "third")},
    }
    with followed("docs/how-to/continue-a-study.md", place, {}, less) as story:
        for _ in range(7):
            story.do()
        # After one round the model may fall; what is asked for is told either way.
        story.do("wardround runs promote runs/first")
        story.do("wardround runs promote runs/second", fine=(0, 2))
        story.do("wardround runs promoted")
        story.do("wardround runs rollback", fine=(0, 2))
    assert "Did it forget" in (place.folder / "runs/third/report.html").read_text(encoding="utf-8")


def test_a_site_leaves_a_simulation_as_the_page_says(place: Place, shared_data: Path) -> None:
    place.environment["WARDROUND_DATA"] = str(shared_data)
    less = dict.fromkeys(("simulate", "wardround withdraw"), "--threads 1 --engine in-process")
    with followed("docs/how-to/leave-a-study.md", place, {}, less) as story:
        story.do("wardround simulate")
        assert "from the commit of round 4" in story.do("wardround withdraw")
        story.do("wardround withdraw")
        assert "Bit-identical to a run that never had it" in story.do("wardround model")
        story.rest()


def follow_what_is_watched(story: Story) -> None:
    """Run what the page's other commands need first, and look at it for as long as Ctrl-C lets."""
    story.do("wardround simulate brain-tissue --watch")
    for _ in ("RUN", "runs/first"):
        story.place.end(story.begin("wardround watch", "http://127.0.0.1"))


def test_the_readme_s_model_meets_a_hospital_s_images(place: Place) -> None:
    """What hospitals type, on the images of the page on importing; and the lines of Python."""
    page = "docs/how-to/import-images.md"
    scripts = {block.text[:9]: block.text for block in blocks_of(page)}
    make, rules, study = (scripts[words] for words in ("import cs", "[[channel", "[study]\nn"))
    for file, text in (("make_dicom.py", make), ("import.toml", rules), ("study.toml", study)):
        (place.folder / file).write_text(text, encoding="utf-8")
    place.run("python make_dicom.py; mkdir north; echo 'name = \"north\"' > north/site.toml")
    write_slice(place.folder / "slice.nii.gz")
    place.run(f"{_FIRST} {LESS['simulate brain-tissue']}")
    with followed("README.md", place, {"/data/dicom": "export"}) as story:
        assert "Imported 12 of 12" in story.do("wardround site import")
        story.do("wardround site check", fine=(0, 1))
        story.do("wardround predict")
        lines = story.take("import wardround as wr")
        short = lines.replace(
            '"brain-tissue"', f'wr.load_study("brain-tissue").with_changes({_SHORT})'
        )
        (place.folder / "rounds.py").write_text(short, encoding="utf-8")
    assert place.run("python rounds.py").count("dice") >= 2
    assert any((place.folder / "results").rglob("*.nii.gz"))


def write_slice(path: Path) -> None:
    import nibabel

    values = np.random.default_rng(0).normal(100, 20, (96, 96)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def test_a_folder_of_pictures_is_looked_at(place: Place) -> None:
    for number in range(12):
        folder = place.folder / "pictures" / ("normal", "abnormal")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"P{number:03}.png")
    with followed("docs/how-to/import-images.md", place, {"FOLDER": "pictures"}) as story:
        story.rest()


def test_a_notebook_is_made_of_its_source(place: Place) -> None:
    pytest.importorskip("jupytext")
    (place.folder / "docs").symlink_to(ROOT / "docs")
    with followed("docs/reference/python-api.md", place) as story:
        command = story.take("jupytext")
        place.run(f"{sys.executable} -m {command} --output first.ipynb")
    assert '"cells"' in (place.folder / "first.ipynb").read_text(encoding="utf-8")


def test_the_table_of_strategies_is_made_anew(place: Place, shared_data: Path) -> None:
    """The block's shell expands as written, and each study with one strategy of each group runs."""
    with followed("docs/concepts/strategies.md", place) as story:
        block = story.take("P=fedavg")
    place.environment["PYTHONPATH"] = str(ROOT)
    definitions, _, lines = block.partition("run=")
    shown = place.run(f'{definitions}printf "%s\\n" "$P,$R,$K,$A,$U,$T"')
    names = [one.partition("@")[0] for one in shown.strip().split(",")]
    assert len({*names}) > 20
    assert all("=" not in name for name in names)
    first = lines.splitlines()[1].partition("#")[0]
    assert first.startswith("$run --study heart-disease")
    less = f"P=fedavg R=coordinate-median U='fedavg@federation.rounds=1'; A=; K=krum@$H; {first}"
    run = f"run={lines.splitlines()[0]}".replace("DATA", str(shared_data))
    said = place.run(f"{definitions}{run}\n{less.replace(',$A,', ',')} --seeds 0")
    assert "coordinate-median" in said


def test_a_tiny_study_of_python_is_simulated_and_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import wardround as wr

    study = write_tiny_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = wr.simulate(study, "run", compare=False, watch=True)
    assert result.status == "finished"
    assert "http://127.0.0.1:" in capfd.readouterr().err
    assert os.path.exists("run/report.html")
