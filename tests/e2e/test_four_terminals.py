"""The commands of docs/tutorials/four-terminals.md, word for word, each terminal's in its order."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.page_commands import Place, blocks_of

from wardround.simulations.local_federation.processes import free_port

pytestmark = [
    pytest.mark.pages,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX"),
]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "four-terminals.md"
_SERVES = re.compile(r"wardround (server|site) start \S+$")


def terminals() -> list[str]:
    """Return each section's commands; what stands before the first section has none."""
    sections = PAGE.read_text().split("\n## ")[1:]
    return ["".join(re.findall(r"^```\n(.*?)^```$", one, re.DOTALL | re.M)) for one in sections]


@pytest.fixture
def place(
    tmp_path: Path, shared_data: Path, hearing_signals: Callable[[], None]
) -> Iterator[Place]:
    opened = Place(tmp_path, hearing_signals, {"WARDROUND_DATA": str(shared_data)})
    try:
        yield opened
        for process in reversed(tuple(opened.running)):
            opened.end(process)
    finally:
        opened.close()


def test_the_page_leaves_no_token_that_others_can_read_and_wants_no_folder_that_is_not_there() -> (
    None
):
    commands = "".join(blocks_of(PAGE))
    assert "export" not in commands
    assert not re.search(r"server invite .*>", commands)


def test_four_terminals_train_the_model_of_simulate_bit_for_bit(place: Place) -> None:
    said = []
    for terminal in terminals():
        # The page trains 15 rounds, and takes the usual port, which another test may have.
        text = terminal.replace("--sites 3 --out", "--sites 3 --set federation.rounds=2 --out")
        text = text.replace("127.0.0.1", f"127.0.0.1 --host 127.0.0.1 --port {free_port()}")
        if "python -c" in text:
            first, comparison = text.split("python -c", 1)
            said += [place.run(first), place.run(f"python -c{comparison}")]
            continue
        for command in text.splitlines():
            if _SERVES.search(command):
                place.begin(command, "Sites reach|answers")
            else:
                said.append(place.run(command))
    assert len(place.running) == 4
    assert re.search(r"^round 2/2 .* 3 sites", "".join(said), re.M)
    assert said[-1] == "True\n"
