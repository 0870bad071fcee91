"""A site whose update was refused goes on from what it remembered before it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.hospitals.table_sites import study_for, write_sites

from wardround.client.app import app, close_sessions
from wardround.client.data.cohorts import open_cohorts
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.common.errors import RunError
from wardround.common.flower.messages.content import arrays_of, configs_of
from wardround.common.messages.instructions import Instruction, unpack_instruction
from wardround.common.messages.replies import SiteEvaluation
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.model_file import load_model
from wardround.common.parameters.schema import Parameters
from wardround.common.study.loading import load_study, with_changes
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import CheckpointStore, Commit
from wardround.simulations.engines.in_process import InProcessGrid, site_contexts
from wardround.simulations.experiment.federation import Machine, run_federation
from wardround.simulations.experiment.simulate import SimulationRequest, simulate

SITES, ROUNDS = 3, 4
HARMS = ("nan in the model", "nan in the extras", "other shape", "lost", "of another run")


class LossyGrid(InProcessGrid):
    """A grid that spoils some updates between the site, which has trained, and the server.

    Attributes:
        harms: By site number and round, how its update is spoilt.
    """

    def __init__(
        self,
        contexts: Mapping[int, Context],
        names: list[str],
        harms: Mapping[tuple[str, int], str],
    ) -> None:
        super().__init__(app, contexts, 1)
        self._names = dict(zip(contexts, names, strict=True))
        self._harms = harms

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = next(iter(message_ids))
        instruction = self._waiting[wanted]
        number = 0
        if instruction.metadata.message_type == "train":
            number = unpack_instruction(instruction.content).round
        (reply,) = super().pull_messages([wanted])
        harm = self._harms.get((self._names[instruction.metadata.dst_node_id], number))
        if harm == "lost":
            return [Message(Error(2, "the connection broke"), reply_to=instruction)]
        if harm is not None:
            reply.content = spoilt(reply.content, harm)
        return [reply]


def spoilt(content: RecordDict, harm: str) -> RecordDict:
    if harm == "of another run":
        configs_of(content)["header"]["run"] = "f" * 32
        return content
    record = "auxiliary" if harm == "nan in the extras" and "auxiliary" in content else "model"
    arrays = from_array_record(arrays_of(content)[record])
    name = next(name for name, tensor in arrays.items() if tensor.is_floating_point())
    arrays[name] = torch.zeros(1) if harm == "other shape" else arrays[name] * torch.nan
    return RecordDict({**content, record: to_array_record(arrays)})


def run(
    root: Path, study: Study, harms: Mapping[tuple[str, int], str]
) -> tuple[Commit, list[Path]]:
    """Run a study, and return its last commit and the sites' folders."""
    folders = sorted(root.glob("sites/*")) or write_sites(root / "sites", SITES)
    contexts = site_contexts(folders, study.to_json(), "cpu", 1)
    grid = LossyGrid(contexts, [folder.name for folder in folders], harms)
    try:
        run_federation(grid, study, root / "checkpoints")
    finally:
        close_sessions()
    return CheckpointStore(root / "checkpoints").load(ROUNDS), folders


def memory(folder: Path, study: Study, commit: Commit) -> Parameters:
    site = open_site(folder)
    return SiteState(site.state_folder, study.digest, commit.progress.run).after(ROUNDS)


def one_replies_each_round(harms: dict[tuple[str, int], str]) -> bool:
    spoilt_in = [number for _, number in harms]
    return all(spoilt_in.count(number) < SITES for number in range(1, ROUNDS + 1))


refused = st.dictionaries(
    st.tuples(st.sampled_from([f"site-{n}" for n in range(SITES)]), st.integers(1, ROUNDS)),
    st.sampled_from(HARMS),
    max_size=8,
).filter(one_replies_each_round)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(harms=refused)
def test_the_shared_control_variate_is_the_mean_of_the_sites_whatever_was_refused(
    harms: dict[tuple[str, int], str],
) -> None:
    study = study_for("scaffold", **{"federation.minimum_sites": 1})
    with TemporaryDirectory() as folder:
        commit, folders = run(Path(folder), study, harms)
        weights = [len(open_cohorts(open_site(f), study).train) for f in folders]
        kept = [memory(f, study, commit) for f in folders]
        counted = {
            f.name: max((n for n in range(1, ROUNDS + 1) if (f.name, n) not in harms), default=0)
            for f in folders
        }
    assert commit.progress.counted == {name: n for name, n in counted.items() if n}
    names = [name for name in commit.strategy if name.startswith("control/")]
    assert names
    for name in names:
        mean = sum(
            weight * (site[name] if site else torch.zeros(()))
            for weight, site in zip(weights, kept, strict=True)
        ) / sum(weights)
        assert torch.allclose(commit.strategy[name], mean, atol=1e-5, rtol=1e-4), name


KEEPING: list[tuple[str, dict[str, Any]]] = [
    ("scaffold", {}),
    ("feddyn", {}),
    ("ditto", {}),
    ("fedper", {}),
    ("fedavg", {"federation.compression": "int8"}),
]


@pytest.mark.parametrize(("strategy", "changes"), KEEPING)
def test_a_refused_update_leaves_the_sites_memory_as_it_was(
    strategy: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    study = study_for(strategy, **changes, **{"federation.minimum_sites": 1})
    # Refused in the last two rounds: what it keeps is of round 2, as in a run that ends there.
    harms = {("site-1", 3): "nan in the model", ("site-1", 4): "lost"}
    commit, folders = run(tmp_path / "refused", study, harms)
    clean, _ = run(tmp_path / "clean", study, {})
    site = open_site(tmp_path / "clean" / "sites" / "site-1")
    before = SiteState(site.state_folder, study.digest, clean.progress.run).after(2)
    assert before, "the strategy keeps something"
    assert digest(memory(folders[1], study, commit)) == digest(before)
    assert digest(memory(folders[0], study, commit)) != digest(
        memory(sorted((tmp_path / "clean" / "sites").glob("*"))[0], study, clean)
    ), "the others went on"


def test_a_run_with_refused_updates_resumes_to_the_bit_identical_end(tmp_path: Path) -> None:
    study = study_for("scaffold", **{"federation.minimum_sites": 1})
    harms = {("site-0", 2): "other shape", ("site-2", 2): "nan in the extras"}
    whole, _ = run(tmp_path / "whole", study, harms)
    run(tmp_path / "cut", study, harms)
    # The server lost its last two rounds; the sites have kept what belongs to them.
    store = tmp_path / "cut" / "checkpoints"
    (store / "round-00004" / "model.safetensors").write_bytes(b"damaged")
    again, folders = run(tmp_path / "cut", study, harms)
    assert digest(again.parameters) == digest(whole.parameters)
    assert digest(again.strategy) == digest(whole.strategy)
    for folder in folders:
        other = tmp_path / "whole" / "sites" / folder.name
        assert digest(memory(folder, study, again)) == digest(memory(other, study, whole))
    assert load_model(store / "round-00004" / "model.safetensors").parameters


def test_the_report_says_who_did_not_evaluate(
    tiny_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = SiteSession.evaluate

    def refuse(self: SiteSession, instruction: Instruction) -> SiteEvaluation:
        if self.site.name == "south":
            msg = "no number may leave"
            raise RunError(msg)
        return evaluate(self, instruction)

    monkeypatch.setattr(SiteSession, "evaluate", refuse)
    study = with_changes(load_study(tiny_study.study), {"federation.rounds": 1})
    machine = Machine(engine="in-process", threads=1)
    page = simulate(SimulationRequest(study, tmp_path / "run", machine)).read_text("utf-8")
    for split in ("validation", "test"):
        assert f"south did not always evaluate on its {split} patients (no number" in page
    assert "north did not always" not in page
