"""A study that names a package, asked of a hospital: its code runs where its hash is allowed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.hospitals.hospital import (
    STUDY,
    ask,
    instruction_for,
    log_of,
    refusal_of,
    write_policy,
    write_site,
)
from tests.support.places.packages import LEAVES_A_MARK, write_package

from wardround.client.app import close_sessions
from wardround.client.doctor.folder import check_packages
from wardround.client.doctor.policy import evaluate_policy
from wardround.client.site.folder import open_site
from wardround.common.files.packages.importing import forget_packages
from wardround.common.files.packages.snapshot import hash_of
from wardround.common.messages.instructions import DESCRIBE, EVALUATE, TRAIN
from wardround.common.messages.refusals import in_words
from wardround.common.messages.replies import (
    unpack_evaluation,
    unpack_refusal,
    unpack_site_info,
    unpack_update,
)
from wardround.common.metrics.sums import SiteValues
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

PACKAGE = "tiny-ward"
CODE = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layer = nn.Linear(in_channels, out_channels)

    def forward(self, values):
        return self.layer(values)


class Batched(Net):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels)
        self.mean = nn.BatchNorm1d(in_channels)

    def forward(self, values):
        return self.layer(self.mean(values))


def squared(logits, targets, class_weights):
    return (logits.softmax(1)[:, 0] - (targets == 0).float()) ** 2


class Failing(Net):
    def forward(self, values):
        if values.device.type != "meta":
            raise KeyError("patient 7")
        return self.layer(values)


class Detached(Net):
    def forward(self, values):
        return self.layer(values).detach()


class Places(Net):
    """Keeps a table of whole numbers, as a Swin Transformer does, and weights of its own kind."""

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels)
        self.layer = self.layer.double()
        self.register_buffer("places", torch.arange(in_channels))

    def forward(self, values):
        return self.layer(values[:, self.places].double()).float()


class Scaled(Net):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels)
        self.register_buffer("scale", torch.ones(()))


def unsigned(must):
    return Net(must, must)


unsigned.__signature__ = "none"


def detached(logits, targets, class_weights):
    return squared(logits, targets, class_weights).detach()


def whole(logits, targets, class_weights):
    return torch.zeros(len(logits), dtype=torch.int64)


SEEN = []


def mixing(logits, targets, class_weights):
    SEEN.append(len(logits))
    return squared(logits, targets, class_weights) - logits.mean()


def wrong(logits, targets, class_weights):
    return squared(logits, targets, class_weights).mean()


class Greedy:
    """Tries to say more than it may."""

    def size(self, classes):
        return 2

    def count(self, outputs, targets):
        return torch.stack([torch.full((len(outputs),), 1e9), outputs[:, 0] * 1e-9], 1)

    def value(self, sums, examinations):
        return 1e12


class Huge(Greedy):
    def size(self, classes):
        return 65


class Silent(Greedy):
    def size(self, classes):
        raise ValueError("patient 7")


class Complex(Greedy):
    def count(self, outputs, targets):
        return torch.ones(len(outputs), 2, dtype=torch.complex64)
'''
POINTS = """
[wardround.networks]
net = tiny_ward.net:Net
batched = tiny_ward.net:Batched
failing = tiny_ward.net:Failing
detached = tiny_ward.net:Detached
places = tiny_ward.net:Places
scaled = tiny_ward.net:Scaled
unsigned = tiny_ward.net:unsigned
[wardround.losses]
squared = tiny_ward.net:squared
mixing = tiny_ward.net:mixing
wrong = tiny_ward.net:wrong
detached = tiny_ward.net:detached
whole = tiny_ward.net:whole
[wardround.metrics]
greedy = tiny_ward.net:Greedy
huge = tiny_ward.net:Huge
silent = tiny_ward.net:Silent
complex = tiny_ward.net:Complex
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the package; return the file that its import leaves."""
    root, place = tmp_path / "site-packages", tmp_path / "imported"
    code = LEAVES_A_MARK.format(place=str(place))
    files = {"tiny_ward/__init__.py": code, "tiny_ward/net.py": CODE}
    write_package(root, files=files, entry_points=POINTS)
    monkeypatch.syspath_prepend(str(root))
    yield place
    close_sessions()
    forget_packages()


def study(**sections: dict[str, object]) -> Study:
    content = STUDY.model_dump(mode="json", exclude_unset=True)
    content["model"] = {"network": f"{PACKAGE}:net"}
    content["packages"] = {PACKAGE: hash_of(PACKAGE)}
    for name, table in sections.items():
        content[name] = {**content.get(name, {}), **table}
    return parse_study(content)


def hospital(tmp_path: Path, asked: Study, packages: str = "", **policy: str) -> Path:
    folder = write_site(tmp_path / "north")
    allow(folder, asked, packages, **policy)
    return folder


def allow(folder: Path, asked: Study, packages: str = "", **policy: str) -> None:
    lines = {"approved": f'["{asked.digest}"]', **policy}
    if packages:
        lines["packages"] = f'{{ {PACKAGE} = "{packages}" }}'
    write_policy(folder, **lines)


def test_a_package_that_the_policy_does_not_list_is_refused_before_it_is_imported(
    tmp_path: Path, mark: Path
) -> None:
    asked = study()
    folder = hospital(tmp_path, asked)
    refusal = unpack_refusal(ask(folder, DESCRIBE, study=asked))
    assert refusal is not None
    assert refusal.code == "packages"
    assert refusal.reason == ""  # a hospital's sentence stays there
    assert "does not list" in in_words(refusal.code)
    assert log_of(folder)[-1].event.kind == "refusal"
    report = evaluate_policy(folder, asked)
    said = {verdict.rule: verdict for verdict in report.verdicts}["packages"]
    assert not said.allowed
    assert PACKAGE in said.reason
    assert hash_of(PACKAGE) in said.reason
    assert not mark.exists()
    assert "tiny_ward" not in sys.modules


def test_a_package_that_is_listed_with_another_hash_is_refused(tmp_path: Path, mark: Path) -> None:
    asked = study()
    folder = hospital(tmp_path, asked, "1" * 64)
    assert refusal_of(ask(folder, DESCRIBE, study=asked))[1] == "packages"
    said = {verdict.rule: verdict for verdict in evaluate_policy(folder, asked).verdicts}
    assert "1" * 64 in said["packages"].reason
    assert not mark.exists()


def test_a_package_that_was_changed_after_it_was_listed_is_refused(
    tmp_path: Path, mark: Path
) -> None:
    asked = study()
    folder = hospital(tmp_path, asked, hash_of(PACKAGE))
    with (tmp_path / "site-packages/tiny_ward/net.py").open("a") as stream:
        stream.write("#")
    assert refusal_of(ask(folder, DESCRIBE, study=asked))[1] == "packages"
    assert not mark.exists()
    assert study().digest != asked.digest


def test_a_listed_package_trains_and_is_measured(tmp_path: Path, mark: Path) -> None:
    asked = study(training={"loss": f"{PACKAGE}:squared"})
    folder = hospital(tmp_path, asked, hash_of(PACKAGE))
    info = unpack_site_info(ask(folder, DESCRIBE, study=asked))
    assert info.digest == asked.digest
    assert mark.exists()
    update = unpack_update(ask(folder, TRAIN, instruction_for(folder, study=asked), asked), asked)
    assert set(update.parameters) == {"layer.weight", "layer.bias"}
    allow(folder, asked)  # taken out of the list while the session is warm
    answer = ask(folder, TRAIN, instruction_for(folder, study=asked), asked)
    assert refusal_of(answer)[1] == "packages"


def test_a_metric_of_a_package_says_no_more_than_it_may(tmp_path: Path, mark: Path) -> None:
    asked = study(evaluation={"metrics": [f"{PACKAGE}:greedy"]})
    folder = hospital(tmp_path, asked, hash_of(PACKAGE))
    answer = ask(folder, EVALUATE, instruction_for(folder, study=asked), asked)
    said = unpack_evaluation(answer, asked).metrics
    assert isinstance(said, SiteValues)
    assert said.values[f"{PACKAGE}:greedy"] == 1.0
    rows = {"metrics": '"sums"', "smallest_cell": "1", "smallest_cohort": "1"}
    allow(folder, asked, hash_of(PACKAGE), **rows)
    answer = ask(folder, EVALUATE, instruction_for(folder, study=asked), asked)
    tables = unpack_evaluation(answer, asked).metrics
    assert not isinstance(tables, SiteValues)
    assert tables is not None
    count = tables.examinations
    assert tables.registered[f"{PACKAGE}:greedy"].tolist() == [count, 0.0]


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ({"training": {"loss": f"{PACKAGE}:wrong"}}, "training"),
        ({"evaluation": {"metrics": [f"{PACKAGE}:huge"]}}, "packages"),
        ({"training": {"loss": f"{PACKAGE}:absent"}}, "packages"),
        ({"training": {"loss": f"{PACKAGE}:detached"}}, "training"),
        ({"training": {"loss": f"{PACKAGE}:whole"}}, "training"),
        ({"evaluation": {"metrics": [f"{PACKAGE}:silent"]}}, "packages"),
        ({"evaluation": {"metrics": [f"{PACKAGE}:complex"]}}, "training"),
    ],
)
def test_what_breaks_its_protocol_is_refused(
    tmp_path: Path, mark: Path, sections: dict[str, dict[str, object]], code: str
) -> None:
    asked = study(**sections)
    folder = hospital(tmp_path, asked, hash_of(PACKAGE))
    instruction = instruction_for(folder, study=asked)
    assert refusal_of(ask(folder, TRAIN, instruction, asked))[1] == code


def test_a_network_that_does_not_say_what_it_takes_is_refused(tmp_path: Path, mark: Path) -> None:
    asked = study(model={"network": f"{PACKAGE}:unsigned"})
    folder = hospital(tmp_path, asked, hash_of(PACKAGE))
    assert refusal_of(ask(folder, DESCRIBE, study=asked))[1] == "study"


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("failing", "a defect of the package tiny-ward, whose author should hear of it (KeyError"),
        ("detached", "or of what the study takes from tiny-ward"),
    ],
)
def test_what_fails_in_a_package_is_not_called_a_defect_of_ours_alone(
    tmp_path: Path, mark: Path, caplog: pytest.LogCaptureFixture, network: str, words: str
) -> None:
    asked = study(model={"network": f"{PACKAGE}:{network}"})
    folder = hospital(tmp_path, asked, hash_of(PACKAGE))
    assert refusal_of(ask(folder, TRAIN, instruction_for(folder, study=asked), asked))[1]
    assert words in caplog.text
    assert "patient 7" not in caplog.text


PRIVATE: dict[str, object] = {
    "mode": "patient",
    "noise_multiplier": 1.0,
    "sampling_rate": 0.1,
    "expected_patients": 20,
}


DEAR = {"lifetime_epsilon": "1000", "study_epsilon": "1000"}


def test_a_private_study_clips_each_patient_whatever_the_package_does(
    tmp_path: Path, mark: Path
) -> None:
    asked = study(
        privacy=PRIVATE,
        training={"loss": f"{PACKAGE}:squared", "local_steps": 2, "optimiser": "sgd"},
    )
    folder = hospital(tmp_path, asked, hash_of(PACKAGE), **DEAR)
    update = unpack_update(ask(folder, TRAIN, instruction_for(folder, study=asked), asked), asked)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in update.parameters.values())
    assert update.metrics is None


def test_a_loss_of_a_package_is_shown_one_patient_at_a_time_under_privacy(
    tmp_path: Path, mark: Path
) -> None:
    asked = study(
        model={"network": "mlp", "features": [6]},  # whose gradients are else found for a batch
        privacy=PRIVATE,
        training={"loss": f"{PACKAGE}:mixing", "local_steps": 2},
    )
    folder = hospital(tmp_path, asked, hash_of(PACKAGE), **DEAR)
    unpack_update(ask(folder, TRAIN, instruction_for(folder, study=asked), asked), asked)
    assert set(sys.modules["tiny_ward.net"].SEEN) == {1}


def test_a_network_that_keeps_something_of_a_patient_is_refused_under_privacy(
    tmp_path: Path, mark: Path
) -> None:
    asked = study(
        model={"network": f"{PACKAGE}:batched"}, privacy=PRIVATE, training={"local_steps": 2}
    )
    folder = hospital(tmp_path, asked, hash_of(PACKAGE), **DEAR)
    refusal = refusal_of(ask(folder, DESCRIBE, study=asked))
    assert refusal[1] == "study"
    assert "from one patient to the next" in " ".join(evaluate_policy(folder, asked).problems)


def test_whole_numbers_that_never_change_stay_at_a_site_of_a_private_study(
    tmp_path: Path, mark: Path
) -> None:
    asked = study(
        model={"network": f"{PACKAGE}:places"}, privacy=PRIVATE, training={"local_steps": 2}
    )
    folder = hospital(tmp_path, asked, hash_of(PACKAGE), **DEAR)
    update = unpack_update(ask(folder, TRAIN, instruction_for(folder, study=asked), asked), asked)
    assert set(update.parameters) == {"layer.weight", "layer.bias"}


def test_other_numbers_beside_the_weights_are_refused_before_a_private_study_begins(
    tmp_path: Path, mark: Path
) -> None:
    asked = study(model={"network": f"{PACKAGE}:scaled"}, privacy=PRIVATE)
    folder = hospital(tmp_path, asked, hash_of(PACKAGE), **DEAR)
    assert refusal_of(ask(folder, DESCRIBE, study=asked))[1] == "study"
    assert "persistent=False" in " ".join(evaluate_policy(folder, asked).problems)


def test_the_doctor_holds_what_is_installed_against_the_policy(tmp_path: Path, mark: Path) -> None:
    asked = study()
    folder = hospital(tmp_path, asked, hash_of(PACKAGE))
    assert PACKAGE in check_packages(open_site(folder))
    allow(folder, asked, "2" * 64)
    with pytest.raises(Exception, match="2" * 64):
        check_packages(open_site(folder))
    assert not mark.exists()
