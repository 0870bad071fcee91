"""What a backup of a site holds beside its data: whom it knows, what it masked, what it watched."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.client.policy.monitoring_word import FOLDER as MONITORING
from wardround.client.policy.monitoring_word import TOLD, told_words
from wardround.client.site.backup import back_up_site, restore_site
from wardround.client.site.folder import open_site
from wardround.client.site.idle_masks import MASKING_FOLDER, STATE, WORDS_KEPT
from wardround.client.site.masked_once import MODELS, UPDATES, masked_before, remember_masked
from wardround.common.security.peers import read_peers, write_peers


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """Return the folder of a site that was restored from a backup."""
    site, file, back = tmp_path / "site", tmp_path / "site.tar", tmp_path / "back"
    site.mkdir()
    (site / "site.toml").write_text('name = "north"\n', encoding="utf-8")
    write_peers(site, {"south": Ed25519PrivateKey.generate().public_key()})
    for what in (UPDATES, MODELS):
        remember_masked(site, what, [], bytes(32))
    in_hand = site / MASKING_FOLDER / ("a" * 32)
    in_hand.mkdir()
    (in_hand / STATE).write_bytes(b"secret seeds of a round")
    (in_hand / WORDS_KEPT).write_bytes(b"an update in the clear")
    watched = open_site(site).state_folder / MONITORING
    (watched / "0123").mkdir(parents=True)
    (watched / "0123" / "reference.json").write_text("{}", encoding="utf-8")
    (watched / "0123" / "lock").touch()
    told = {"period": "2026-W48", "word": "noised quiet", "epsilon": 0.5}
    (watched / TOLD).write_text(json.dumps(told) + "\n", encoding="utf-8")
    back_up_site(site, file, with_keys=False)
    restore_site(file, back)
    return back


def test_a_restored_site_masks_nothing_that_it_masked_before(lost: Path) -> None:
    assert masked_before(lost, UPDATES) == masked_before(lost, MODELS) == [bytes(32)]


def test_a_backup_holds_no_secret_of_a_masked_round_and_no_update(lost: Path) -> None:
    names = {path.name for path in (lost / MASKING_FOLDER).rglob("*") if path.is_file()}
    assert names == {UPDATES, MODELS}


def test_a_restored_site_knows_whom_it_knew(lost: Path) -> None:
    assert list(read_peers(lost)) == ["south"]


def test_a_restored_site_knows_what_it_watched_and_what_that_has_spent(lost: Path) -> None:
    state = open_site(lost).state_folder
    assert [one.epsilon for one in told_words(state)] == [0.5]
    assert {path.name for path in (state / MONITORING / "0123").iterdir()} == {"reference.json"}
