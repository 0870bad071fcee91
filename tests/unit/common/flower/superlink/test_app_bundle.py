"""The contract with Flower's SuperLink: the bundle, the version, the surroundings."""
# ruff: noqa: TID251 - a contract with internals names them

import zipfile
from io import BytesIO

import pytest
from flwr.common.config import get_fab_config, get_fused_config_from_fab
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


def test_another_version_of_flower_is_refused_with_both_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surroundings.require_flower()
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.42.3")
    with pytest.raises(RunError, match=r"flwr 1\.41.*flwr 1\.42\.3 is installed"):
        surroundings.require_flower()


def test_a_process_that_calls_this_machine_alone_knows_no_proxy() -> None:
    given = {"HTTPS_PROXY": "http://proxy", "http_proxy": "http://proxy", "PATH": "/bin"}
    assert surroundings.without_proxies(given) == {"PATH": "/bin"}
