"""A hospital fetches the finished model of a study that it took part in; nobody else gets it."""

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from tests.support.stage import table_study, write_table
from tests.support.studies.tiny_study import Said

from wardround.client.clinic.inference import released_model
from wardround.client.clinic.inference.released_model import fetch_model
from wardround.client.policy.approvals import decide
from wardround.client.site.credentials import load_site_tls, make_client_context
from wardround.common.errors import ModelError, PolicyError, RunError, WardroundError
from wardround.common.models.model_folder import open_model_folder
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.model_file import LINEAGE, load_model, save_model
from wardround.common.security.released_model import (
    RELEASE_HEADER,
    ReleasedModel,
    asked_study,
    models_path,
)
from wardround.common.security.signing_key import open_public_key
from wardround.common.study.study import Study
from wardround.server.identity.membership import revoke
from wardround.server.operators.client import server_at
from wardround.server.operators.messages import Submission
from wardround.server.scheduling.folder import RunFolder
from wardround.simulations.local_federation.processes import LocalFederation
from wardround.simulations.local_federation.run import write_trial_policy

pytestmark = [
    pytest.mark.attacks,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
NORTH, SOUTH, EAST = "north", "south", "east"  # east is a member and took no part
PATIENCE_SECONDS = 120.0
Command = Callable[..., Said]


@dataclass(frozen=True, slots=True)
class Finished:
    """A server whose one run has ended, with its two sites and a third member."""

    federation: LocalFederation
    study: Study
    run: str

    def site(self, name: str) -> Path:
        return self.federation.server.parent / name

    @property
    def model(self) -> Path:
        return RunFolder(self.federation.server, self.run).model_path

    def get(self, name: str, path: str, method: str = "GET") -> httpx.Response:
        """Ask the server as a site would, for any path."""
        tls = load_site_tls(self.site(name))
        context = make_client_context(tls)
        with httpx.Client(base_url=f"https://{tls.address}", verify=context) as client:
            return client.request(method, path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    root = tmp_path_factory.mktemp("m")
    study = table_study("released", rounds=2, minimum_sites=2)
    with LocalFederation(root, {"OMP_NUM_THREADS": "1"}) as federation:
        federation.make_server()
        federation.start_server()
        for name in (NORTH, SOUTH, EAST):
            (root / name).mkdir()
            (root / name / "site.toml").write_text(f'name = "{name}"\n')
            write_table(root / name, 40)
            write_trial_policy(root / name, study)
            decide(root / name, study.digest, "approved")
            (root / name / "studies").mkdir(exist_ok=True)
            (root / name / "studies" / f"{study.digest}.toml").write_text(study.to_toml())
            federation.join(root / name)
        for name in (NORTH, SOUTH):
            federation.start_site(root / name)
        with server_at(str(federation.server)) as line:
            asked = Submission(study.to_toml(), "toml", (NORTH, SOUTH))
            run = line.submit(asked).run
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            with server_at(str(federation.server)) as line:
                summary = line.show(run).summary
            if summary.is_over:
                break
            assert time.monotonic() < until, summary
            time.sleep(0.2)
        assert summary.state == "finished", summary.message
        yield Finished(federation, study, run)


def test_a_site_that_took_part_fetches_the_model_with_digest_and_card(
    finished: Finished, wardround: Command, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    words = (finished.study.digest[:16], "--site", finished.site(NORTH), "--out", out)
    said = wardround("site", "model", *words)
    assert said.code == 0, said.err
    assert "made by 2 sites" in said.out
    folder = open_model_folder(out)
    assert folder.digest in said.out
    kept = load_model(finished.model).parameters
    assert digest(folder.weights()) == digest(kept)
    assert folder.contract.study_digest == finished.study.digest
    assert "not for diagnosis" in folder.card
    assert SOUTH not in folder.card, "which hospitals took part is the server's to say"
    assert folder.network()(torch.zeros(1, 2)).shape == (1, 2)
    server_key = finished.federation.server / "signing" / "server.pub"
    site_key = finished.site(NORTH) / "keys" / "site.pub"
    keys = ("--server-key", server_key, "--site-key", site_key)
    verified = wardround("model", "verify", out, *keys)
    assert verified.code == 0, verified.err
    assert "2 rounds, signed by the server's key" in verified.out
    assert verified.out.count("signed its part of 2 rounds") == 2
    assert "updates in the model are signed by no site" not in verified.out
    assert NORTH not in folder.lineage.decode(), "a model does not name its hospitals"
    absent = wardround("model", "verify", out, "--site-key", finished.site(EAST) / "keys/site.pub")
    assert absent.code == 2, "east took no part"
    for content in folder.lineage.splitlines():
        envelope = Envelope.from_dict(json.loads(content))
        public = open_public_key(server_key).public_bytes_raw().hex()
        key = SSlibKey(public, "ed25519", "ed25519", {"public": public})
        assert list(envelope.verify([key], 1)) == [public]
    again = wardround("site", "model", *words)
    assert again.code == 2
    assert "is there already" in again.err


def test_a_member_that_took_no_part_gets_the_words_of_a_study_that_there_is_not(
    finished: Finished, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="took no part in it"):
        fetch_model(finished.site(EAST), finished.study.digest, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    known = finished.get(EAST, models_path(finished.study.digest))
    unknown = finished.get(EAST, models_path("0" * 64))
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert known.status_code == 404
    assert RELEASE_HEADER not in known.headers


@pytest.mark.parametrize("path", ["", "../../server.toml", "..%2f..%2fserver.toml", "A" * 64,
                                  "0" * 63, "0" * 64 + "/", "0" * 64 + "%00"])  # fmt: skip
def test_no_other_path_opens_a_file(finished: Finished, path: str) -> None:
    assert finished.get(NORTH, f"/wardround/models/{path}").status_code in (403, 404)
    assert asked_study(f"/wardround/models/{path}") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
def test_nothing_but_fetching_is_done(finished: Finished, method: str) -> None:
    answer = finished.get(NORTH, models_path(finished.study.digest), method)
    assert answer.status_code == 403


def test_who_has_no_certificate_or_a_revoked_one_gets_nothing(finished: Finished) -> None:
    tls = load_site_tls(finished.site(EAST))
    bare = ssl.create_default_context(cafile=str(tls.ca_path))
    with (
        httpx.Client(base_url=f"https://{tls.address}", verify=bare) as client,
        pytest.raises(httpx.HTTPError),
    ):
        client.get(models_path(finished.study.digest)).raise_for_status()
    federation = finished.federation
    (federation.server.parent / "west").mkdir()
    (federation.server.parent / "west" / "site.toml").write_text('name = "west"\n')
    federation.join(federation.server.parent / "west")
    assert finished.get("west", "/health").status_code == 200
    revoke(federation.server, "west")

    def is_out() -> bool:
        try:
            return finished.get("west", models_path(finished.study.digest)).status_code == 403
        except httpx.HTTPError:
            return True

    until = time.monotonic() + 20
    while not is_out():
        assert time.monotonic() < until
        time.sleep(0.2)


def test_the_sites_own_policy_and_approvals_come_first(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = finished.site(SOUTH) / "policy.toml"
    before = policy.read_text()
    monkeypatch.setattr(released_model, "_download", None)  # nothing is asked for
    try:
        policy.write_text(f"takes_models = false\n{before}")
        with pytest.raises(PolicyError, match="takes_models = false"):
            fetch_model(finished.site(SOUTH), finished.study.digest, tmp_path / "model")
    finally:
        policy.write_text(before)
    with pytest.raises(PolicyError, match="was not approved here"):
        fetch_model(finished.site(SOUTH), "f" * 64, tmp_path / "model")


# --- A hostile server -----------------------------------------------------------------------------


def spoilt(finished: Finished, place: Path, kind: str) -> ReleasedModel:
    """Write what a hostile server sends, and return what it says of it."""
    good = load_model(finished.model).parameters
    first = next(iter(good))
    models = {
        "another shape": {**good, first: torch.zeros(3, 3)},
        "one tensor more": {**good, "extra": torch.zeros(2)},
        "one tensor less": {name: one for name, one in good.items() if name != first},
        "no number": {**good, first: good[first] * float("nan")},
        "absurd weights": {**good, first: good[first] * 0 + 1e12},
        "another model": {name: one + 1 for name, one in good.items()},
    }
    if kind == "a record of nothing":
        models[kind] = good
        save_model(place, good, {LINEAGE: "{}\n"}, durable=False)
    elif kind == "no model":
        place.write_bytes(b"\x80\x04cos\nsystem\n")
    else:
        save_model(place, models[kind], {}, durable=False)
    named = good if kind in ("another model", "no model") else models[kind]
    return ReleasedModel(run="r", model=digest(named), round=1, sites=2, bytes=place.stat().st_size)


@pytest.mark.parametrize(
    "kind",
    ["another shape", "one tensor more", "one tensor less", "no number", "absurd weights",
     "another model", "no model", "a record of nothing"],
)  # fmt: skip
def test_what_is_not_the_approved_studys_model_is_not_kept(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    site = finished.site(NORTH)
    policy = (site / "policy.toml").read_text()
    monkeypatch.setattr(
        released_model,
        "_download",
        lambda _site, _digest, place, *_: spoilt(finished, place, kind),
    )
    (site / "policy.toml").write_text(policy.replace("simulated = true", ""))
    try:
        with pytest.raises(WardroundError) as refused:
            fetch_model(site, finished.study.digest, tmp_path / "model")
    finally:
        (site / "policy.toml").write_text(policy)
    assert not isinstance(refused.value, PolicyError)
    assert not (tmp_path / "model").exists()
    assert not list((site / "state").glob("model-*")), "nothing of it stays"


@pytest.mark.parametrize(
    ("header", "body", "words"),
    [
        ({"bytes": 10**12}, b"x", "the policy takes at most"),
        ({"bytes": 5}, b"x" * 50, "not as long as the server said"),
        ({"bytes": 50}, b"x" * 5, "not as long as the server said"),
        ({"model": "z"}, b"x", "not understood"),
        ({"sites": -1}, b"x", "not understood"),
        ({"more": 1}, b"x", "not understood"),
    ],
)
def test_no_byte_more_is_taken_than_was_said_and_the_policy_allows(
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    header: dict[str, object],
    body: bytes,
    words: str,
) -> None:
    said = {"run": "r", "model": "0" * 64, "round": 1, "sites": 2, "bytes": 1, **header}
    answer = httpx.Response(
        200, headers={RELEASE_HEADER: json.dumps(said)}, stream=httpx.ByteStream(body)
    )
    fake = httpx.Client(base_url="https://server", transport=httpx.MockTransport(lambda _: answer))
    monkeypatch.setattr(released_model, "open_link", lambda *_: fake)
    with pytest.raises((ModelError, RunError), match=words):
        fetch_model(finished.site(NORTH), finished.study.digest, tmp_path / "model")
    assert not (tmp_path / "model").exists()
