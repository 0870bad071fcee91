"""``wardround study plan``: four hospitals' histograms plan what the data in one place would."""

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from flwr.app import RecordDict
from tests.support.hospitals.image_ward import volume, ward_study, write_ward

from wardround.client.app import close_sessions
from wardround.common.flower.messages.content import to_bytes
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study
from wardround.server.planning import collection
from wardround.server.planning.collection import Collected, as_parameters, from_parameters
from wardround.server.planning.merging import merge_statistics
from wardround.server.planning.study_file import planned_study
from wardround.server.planning.study_plan import StudyPlan, plan_study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.planning import _asked
from wardround.simulations.sites.preparation import PreparedSites, prepare_sites
from wardround.simulations.studies import find_study

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "plan-a-study.md"
ALONE = Machine(device="cpu", engine="in-process", threads=1)


@pytest.fixture(scope="module")
def hippocampus() -> Study:
    changes = {"statistics.ask": True, "statistics.intensity": [0, 1000], "data.intensity": "ct"}
    return with_changes(find_study("hippocampus"), changes)


@pytest.fixture(scope="module")
def sites(
    hippocampus: Study, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PreparedSites]:
    yield prepare_sites(hippocampus, tmp_path_factory.mktemp("plan"), shared_data)
    close_sessions()


@pytest.fixture(scope="module")
def captured(hippocampus: Study, sites: PreparedSites) -> tuple[Collected, list[RecordDict]]:
    """What the four hospitals say, and the very messages in which they do."""
    seen: list[RecordDict] = []
    unpack = collection.unpack_statistics

    def recording(content: RecordDict, study: Study) -> Any:
        seen.append(content)
        return unpack(content, study)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "unpack_statistics", recording)
        return _asked(sites.folders, hippocampus, ALONE), seen


def test_four_hospitals_plan_hippocampus_as_the_pooled_data_do(
    hippocampus: Study, sites: PreparedSites, captured: tuple[Collected, list[RecordDict]]
) -> None:
    together = plan_study(captured[0], hippocampus)
    pooled = plan_study(_asked((sites.pooled,), hippocampus, ALONE), hippocampus)
    assert _numbers(together) == _numbers(pooled)
    assert together.value("data.spacing") == (1.0, 1.0, 1.0)
    assert together.value("training.patch_size") == (40, 56, 40)
    assert together.value("model.features") == (32, 64, 128, 256)
    rows, sizes = _training_rows(sites)
    images = [np.asarray(nibabel.load(row["image"]).dataobj, np.float32) for row in rows]
    masks = [np.asarray(nibabel.load(row["mask"]).dataobj) > 0 for row in rows]
    assert sizes == len(rows)
    foreground = together.merged["foreground-0"]
    # Every patient weighs the same: quantiles of the voxels, each worth one over their number.
    values = np.concatenate([image[mask] for image, mask in zip(images, masks, strict=True)])
    weights = np.concatenate([np.full(mask.sum(), 1 / mask.sum()) for mask in masks])
    order = values.argsort()
    upto = weights[order].cumsum() / weights.sum()
    for share in (0.005, 0.5, 0.995):
        exact = values[order][np.searchsorted(upto, share)]
        exact = min(max(float(exact), 0), 1000)
        assert abs(foreground.quantile(share) - exact) <= foreground.asked.step
    mean = float((np.clip(values, 0, 1000) * weights).sum() / weights.sum())
    assert foreground.mean == pytest.approx(mean, abs=foreground.asked.step)
    for axis, median in enumerate(np.median([np.array(i.shape) for i in images], axis=0)):
        size = together.merged[f"size-{axis}"]
        assert abs(size.quantile(0.5) - median) <= size.asked.step


def test_no_message_holds_anything_of_a_patient(
    hippocampus: Study, sites: PreparedSites, captured: tuple[Collected, list[RecordDict]]
) -> None:
    messages = captured[1]
    rows, _ = _training_rows(sites)
    assert len(messages) == 4
    assert len({len(to_bytes(content)) // 100 for content in messages}) == 1  # whoever the patients
    for content in messages:
        written = to_bytes(content)
        assert not any(Path(row["image"]).stem.split(".")[0].encode() in written for row in rows)
        for row in rows[:20]:
            stored = np.asarray(nibabel.load(row["image"]).dataobj, np.float32)
            assert stored.tobytes()[:256] not in written


STUDY = """
[study]
name = "ward"
task = "segmentation"
[data]
dimensions = 3
classes = ["background", "liver", "kidney"]
size = [16, 16, 16]
fit = "pad"
intensity = "ct"
[model]
network = "unet"
features = [4, 8]
[training]
loss = "cross-entropy"
batch_size = 2
[statistics]
intensity = [-500, 500]
[simulation]
data = "folder"
split = "iid"
[simulation.options]
manifest = "all/manifest.csv"
"""


@pytest.mark.long
def test_the_pages_commands_write_a_study_with_a_reason_for_each_number(
    tmp_path: Path, wardround: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = [volume(seed) for seed in range(40)]
    manifest = write_ward(tmp_path / "all", volumes, ward_study()) / "manifest.csv"
    rows = (row.rpartition(",")[0] for row in manifest.read_text().splitlines())
    manifest.write_text("\n".join(rows))
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    commands = "".join(blocks[:2]).splitlines()
    for command in commands:
        said = wardround(*shlex.split(command)[1:])
        assert said.code == 0, said.err
    assert "Beside the data in one place" in said.out
    study = load_study(tmp_path / "cautious.toml")
    assert study.training.patch_size == (12, 12, 8)
    assert not study.statistics.ask
    assert study.data.size is None
    assert isinstance(study.training.class_weights, tuple)
    assert len(study.training.class_weights) == 3
    text = (tmp_path / "cautious.toml").read_text()
    assert "% of them suppressed" in text
    assert text.index("# Median voxel size") < text.index("spacing = [")
    assert tomllib.loads(text)["model"]["network"] == "dynunet"
    again = wardround(*shlex.split(commands[0])[1:])
    assert again.code == 2
    assert "exists already" in again.err
    private = wardround(
        *("study", "plan", "study.toml", "--sites", 2, "--out", "private.toml"),
        *("--set", "privacy.mode='patient'", "--set", "statistics.epsilon=100"),
        *("--set", "model.normalisation='group'"),
    )
    assert private.code == 0, private.err
    assert "with noise of" in private.out
    assert "Beside the data in one place" in private.out
    assert load_study(tmp_path / "private.toml").model.network == "unet"
    elsewhere = wardround("study", "plan", "study.toml", "--out", "new.toml", "--run", "ward-1")
    assert elsewhere.code == 2
    assert "--run is about a server's sites" in elsewhere.err


def _training_rows(sites: PreparedSites) -> tuple[list[dict[str, str]], int]:
    import csv

    from wardround.client.data.cohorts import open_cohorts
    from wardround.client.site.folder import open_site

    study = with_changes(find_study("hippocampus"), {"statistics.ask": True})
    rows, count = [], 0
    for folder in sites.folders:
        train = open_cohorts(open_site(folder), study).train
        chosen = {one.row for one in train.examinations}
        with (folder / "manifest.csv").open() as stream:
            listed = list(csv.DictReader(stream))
        rows += [row for number, row in enumerate(listed, start=2) if number in chosen]
        count += len(chosen)
    return rows, count


def _numbers(plan: StudyPlan) -> dict[str, object]:
    return {one.key: one.value for one in plan.values}


def test_statistics_survive_their_file_and_a_plan_of_ct_has_its_constants(tmp_path: Path) -> None:
    study = ward_study(statistics={"intensity": [-500, 500], "intensity_bins": 1000})
    folders = []
    for name in ("north", "south"):
        volumes = [volume(seed + len(name) * len(folders)) for seed in range(8)]
        folders.append(write_ward(tmp_path / name, volumes, study))
    said = _asked(folders, study, ALONE)
    close_sessions()
    kept = from_parameters(as_parameters(said), study)
    assert sorted(kept.sites) == ["north", "south"]
    plan = plan_study(kept, study)
    foreground = merge_statistics(kept, study)["foreground-0"]
    centre, width = plan.value("data.window")  # type: ignore[misc]
    assert centre - width / 2 == pytest.approx(foreground.quantile(0.005))
    assert centre + width / 2 == pytest.approx(foreground.quantile(0.995))
    mean, deviation = plan.value("data.scaling")  # type: ignore[misc]
    assert (mean, deviation) == (pytest.approx(40, abs=20), pytest.approx(100, rel=0.2))
    planned = planned_study(study, plan)
    assert planned.data.scaling == (mean, deviation)
    assert planned.training.class_weights == "none"
