"""What is done before a server serves: its certificate, and where operators are answered."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wardround.common.errors import InputError
from wardround.server.identity.server_certificate import load_server_tls, renew_server_certificate
from wardround.server.service import service
from wardround.server.service.installation import init_server
from wardround.server.service.service import serve


class Idle:
    """A supervisor that finds nothing to do."""

    def __init__(self, folder: Path, queue: object, on_tick: Callable[[], None]) -> None:
        on_tick()

    def run(self, stopped: Callable[[], bool]) -> None:
        assert not stopped()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_server(tmp_path / "server", "lab", ["localhost"], "127.0.0.1", 8443)
    return tmp_path / "server"


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where operators were to be answered."""
    seen: list[str] = []

    @contextmanager
    def served(folder: Path, address: str) -> Iterator[None]:
        seen.append(address)
        yield

    monkeypatch.setattr(service, "operators_served", served)
    monkeypatch.setattr(service, "Supervisor", Idle)
    return seen


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "server.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_operators_are_answered_where_server_toml_says_and_the_option_wins(
    folder: Path, addresses: list[str]
) -> None:
    serve(folder)
    change(folder, 'operators = ""', 'operators = "127.0.0.1:8444"')
    serve(folder)
    serve(folder, "localhost:9000")
    assert addresses == ["", "127.0.0.1:8444", "localhost:9000"]


@pytest.mark.parametrize("address", ["8444", "https://fl.example.org:8444", "host:port"])
def test_an_operators_address_that_is_none_is_refused_before_anything_starts(
    folder: Path, addresses: list[str], address: str
) -> None:
    change(folder, 'operators = ""', f'operators = "{address}"')
    with pytest.raises(InputError, match=r"operators"):
        serve(folder)
    assert addresses == []


def test_a_certificate_that_expired_while_the_server_was_off_is_renewed_at_its_start(
    folder: Path, addresses: list[str]
) -> None:
    change(folder, "server_certificate_days = 365.0", "server_certificate_days = 1e-12")
    renew_server_certificate(folder)
    change(folder, "server_certificate_days = 1e-12", "server_certificate_days = 365.0")
    time.sleep(1.1)  # certificates count in seconds
    with pytest.raises(InputError, match="expired"):
        load_server_tls(folder)
    serve(folder)
    load_server_tls(folder)


def test_a_server_says_that_it_serves_once_its_link_answers(
    folder: Path, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter([None, frozenset[str](), frozenset[str]()])
    monkeypatch.setattr(service, "connected_sites", lambda _: next(replies))
    told: list[str] = []
    seen: list[int] = []

    class Looking(Idle):
        def __init__(self, folder: Path, queue: object, on_tick: Callable[[], None]) -> None:
            for _ in range(3):
                on_tick()
                seen.append(len(told))

    monkeypatch.setattr(service, "Supervisor", Looking)
    serve(folder, tell=told.append)
    assert seen == [0, 1, 1]
    assert told == ["localhost:8443"]
