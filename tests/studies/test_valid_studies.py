"""Whatever ``wardround study check`` passes runs, or says what to do about it.

``make studies`` draws 200 studies, always the same ones. ``make studies STUDIES=2000`` (the
environment variable WARDROUND_STUDIES of pytest) draws more, and ``PYTEST_FLAGS=-s`` prints how
they ended. A study that fails is printed whole.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from tests.studies.drawn_study import draw_study
from tests.studies.patients import write_images, write_manifest

from wardround.common.errors import WardroundError
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.simulations.experiment.federation import Machine
from wardround.simulations.experiment.simulate import SimulationRequest, simulate

STUDIES = int(os.environ.get("WARDROUND_STUDIES", "200"))
MACHINE = Machine(device="cpu", engine="in-process", threads=1)
# What a checked study may still meet: it names what the data, or the number of sites, does not
# allow, and what to change. Nothing else may end a run.
EXPECTED = (
    r"needs \d+ sites to withstand \d+ hostile ones, got \d+ updates?: add sites",
    r"sites with \d+ classes each cannot hold \d+ classes: raise simulation",
    r"images of different sizes cannot form one batch: rows? .* of the manifest .* Set training",
    r"has no (train|validation|test) patients: ",
    r"no training row of the manifest is of it: write \d+ in the column wave",
    r"data.combat has no row for the site \S+: .* Fit it anew with this site: wardround study plan",
    # A wave of a few patients, whose parts are drawn among themselves.
    r"none of the \d+ patients of the manifest is in (train|validation|test): write ",
    r"there are \d+ \w+ patients \(of \d+\) for \d+ sites: lower simulation.sites",
    r"needs labels, and these patients have none to tell apart: set it to iid",
    r"simulation.lacking takes .* examinations have no other image: take another channel",
    r"(round \d+|\d+ rounds in a row) ended without a sum \(.*Put right what these reasons say",
    r"too few sites trained .*the roster has \d+ sites and needs \d+.* federation.masks.groups",
    r"Flower's \w+ (could not combine|made no model of) \d+ updates?.*: add sites",
)
# A squared error of values by the hundred leaves the numbers there are in a few steps: the remedy
# that the message names has to help.
DIVERGED = (
    r"the training loss is (nan|inf|[\d.e+]+) after \d+ steps?: lower training.learning_rate"
    r"|a gradient is too large for float16, or the training loss is no number: set training.prec"
)
pytestmark = pytest.mark.studies


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the weights that studies start from in a folder of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARDROUND_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def endings() -> Iterator[Counter[str]]:
    counted: Counter[str] = Counter()
    yield counted
    print(f"\n{counted.total()} studies: {dict(counted)}")  # noqa: T201 # the count by hand


@settings(
    max_examples=STUDIES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a smaller seed is no simpler study
    suppress_health_check=list(HealthCheck),
)
@example(seed=1_083_657_536)  # fedbn, of a network that has one layer
@example(seed=52_782)  # the loss of a regression leaves the numbers there are
@example(seed=1_440)  # fedrep with privacy, compared with itself without it
@given(seed=st.integers(0, 2**63))
def test_a_study_that_passes_its_check_runs_or_says_what_to_do(
    seed: int, images: Path, endings: Counter[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("study")
    manifest = folder / "manifest.csv"
    study, kind = draw_study(seed, str(manifest))
    several, outcome = study.data.multi_label, study.task.outcome
    classes = study.class_count or 2  # of pretraining, which has none and looks at none
    facts = {"outcome": outcome, "optional": study.data.optional}
    write_manifest(manifest, images, kind, classes, several, seed % 2 == 0, **facts)
    try:
        report = simulate(SimulationRequest(study, folder / "run", MACHINE))
        assert report.stat().st_size
        endings["ran"] += 1
    except WardroundError as error:
        said = str(error)
        if re.search(DIVERGED, said):
            simulate(SimulationRequest(_slower(study), folder / "slower", MACHINE))
            endings["ran at a lower rate"] += 1
            return
        assert any(re.search(words, said) for words in EXPECTED), f"{said}\n{study.to_toml()}"
        endings["refused with a remedy"] += 1
    except BaseException as error:
        error.add_note(study.to_toml())
        raise
    finally:
        shutil.rmtree(folder)


def _slower(study: Study) -> Study:
    rate = study.training.learning_rate * 1e-4
    half = study.training.precision == "float16"
    precision = {"training.precision": "bfloat16"} if half else {}
    return with_changes(study, {"training.learning_rate": rate, **precision})
