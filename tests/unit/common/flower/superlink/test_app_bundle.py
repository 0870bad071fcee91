"""The contract with Flower's SuperLink: the bundle, the version, the surroundings."""
# ruff: noqa: TID251 - a contract with internals names them

import zipfile
from io import BytesIO

import pytest
from flwr.common.config import get_fab_config, get_fused_config_from_fab
from flwr.supercore.constant import FLWR_PACKAGE_VERSION_METADATA_KEY
from flwr.supercore.run import Run

from wardround.common.errors import RunError
from wardround.common.flower import environment as surroundings
from wardround.common.flower.app_bundle import bundle, bundle_hash

GOLDEN_BUNDLE = "bc8230f2b2c6ab8ac0a0c71fbed9c5f9cfa1f424b4658571f58869f89e00b7c7"


def test_the_bundle_is_the_same_everywhere_holds_no_code_and_flower_takes_it() -> None:
    assert bundle_hash() == GOLDEN_BUNDLE
    with zipfile.ZipFile(BytesIO(bundle())) as archive:
        assert sorted(archive.namelist()) == [".info/CONTENT", "LICENSE", "pyproject.toml"]
    assert get_fab_config(bundle())["tool"]["flwr"]["app"]["config"] == {"study": "", "run": ""}
    run = Run.create_empty(1)
    run.override_config = {"study": "{}"}
    assert get_fused_config_from_fab(bundle(), run) == {"study": "{}", "run": ""}


@pytest.mark.parametrize("found", ["1.40.9", "1.43.0", "1.410.0", "2.41.0", "nonsense"])
def test_a_flower_that_was_not_tested_is_refused_with_all_versions(
    monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    surroundings.require_flower()
    monkeypatch.setattr("importlib.metadata.version", lambda _: found)
    words = rf"flwr 1\.41 and 1\.42, and flwr {found} is installed: pip install 'flwr>=1.41,<1.43'"
    with pytest.raises(RunError, match=words):
        surroundings.require_flower()


@pytest.mark.parametrize("found", ["1.41.0", "1.41.7", "1.42.0", "1.42.0rc1"])
def test_a_patch_of_a_tested_flower_is_taken(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: found)
    surroundings.require_flower()


def test_flower_says_its_version_in_the_header_that_the_gate_reads() -> None:
    assert FLWR_PACKAGE_VERSION_METADATA_KEY == surroundings.FLOWER_HEADER


def test_a_process_that_calls_this_machine_alone_knows_no_proxy() -> None:
    given = {"HTTPS_PROXY": "http://proxy", "http_proxy": "http://proxy", "PATH": "/bin"}
    assert surroundings.without_proxies(given) == {"PATH": "/bin"}
