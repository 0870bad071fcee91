"""The notebooks of ``docs/notebooks``, executed as a reader would, each in a kernel of its own.

What their prose claims of numbers is asked in the same kernel after the last cell.
"""

import resource
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

pytestmark = pytest.mark.notebooks
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
MOST_SECONDS = 180  # on two cores
_PATIENCE_SECONDS = (
    600  # of a machine that does much else beside: there the processor's time counts
)

# What the text of a notebook says of its numbers.
CLAIMS = {
    "first_simulation": """
        assert stopped == "interrupted" and result.status == "finished"
        assert list(federated["round"]) == list(range(9))
        assert federated["value"].iloc[-1] > federated["value"].iloc[0] + 0.2
        assert set(result.models) >= {"federated", "pooled", "local-hospital-1"}
        assert len(predictions) == len(rows) and found.shape == truth.shape
        assert min(overlap.values()) > 0.4
    """,
    "own_data": """
        assert data.sites == ("north", "south", "west") and data.patients == 120
        assert "patient of its own" in str(warned[0].message)
        assert result.status == "finished" and result.value() > 0.8
        assert len(predictions) == 240 and means["spot"] > means["clear"] + 0.1
        assert clinical.value() > 0.7
    """,
    "strategies_compared": """
        assert compared.loc["fedbn", "all sites"] >= compared.loc["fedavg", "all sites"]
        assert compared["all sites"].min() > 0.6
        assert mean["weight"][0] == 5.25 and median["weight"][0] == 2
    """,
    "privacy_and_its_price": """
        assert values["no privacy"] > 0.8
        for name in ("epsilon 8", "epsilon 1"):
            assert values["no privacy"] - 0.06 < values[name] < values["no privacy"] + 0.02
        assert values["epsilon 0.03"] < values["no privacy"] - 0.06
        assert (spent.epsilon <= 1).all() and (spent.epsilon > 0.98).all() and len(spent) == 3
        two, one = (price[price.epsilon == e].noise_multiplier.iloc[0] for e in (0.5, 1))
        assert 1.6 < two / one < 2.1
    """,
    "attack_and_defence": """
        assert combined["fedavg"].max() < -4 and combined["fedavg"].min() > -6
        assert all(0.8 < combined[rule].min() < 1.2 for rule in rules[1:])
        assert values["attacked, mean"] < 0.65
        assert values["attacked, median"] > values["all honest"] - 0.1
        assert values["attacked, multi-krum"] > values["all honest"] - 0.05
    """,
}


def _seconds_of_children() -> float:
    """Return what the kernels that have ended, and their own children, worked."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read(name: str) -> Any:
    return jupytext.read(FOLDER / f"{name}.py")


@pytest.mark.parametrize("name", CLAIMS)
def test_a_notebook_runs_and_its_numbers_are_as_it_says(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = read(name)
    book.cells.append(nbformat.v4.new_code_cell(textwrap.dedent(CLAIMS[name]).strip()))
    began, worked = time.monotonic(), _seconds_of_children()
    nbclient.NotebookClient(
        book, timeout=_PATIENCE_SECONDS, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    seconds, worked = time.monotonic() - began, _seconds_of_children() - worked
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: {seconds:.0f} s, {worked:.0f} s of a processor ")
    assert min(seconds, worked) < MOST_SECONDS
    outputs = [one for cell in book.cells for one in cell.get("outputs", ())]
    assert not [one for one in outputs if one.output_type == "error"]
    assert not [one for one in outputs if one.get("name") == "stderr"]
    shown = [one for one in outputs if one.output_type in ("display_data", "execute_result")]
    assert len(shown) > 4
    bars = [one for one in shown if "Finished in" in str(one.data.get("text/plain"))]
    assert bars, "no progress was shown"
    assert sum(len(str(one)) for one in bars) < 1_000 * len(bars)  # what a saved notebook holds


def test_all_notebooks_are_here_as_text_without_outputs() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*CLAIMS}
    assert not [*FOLDER.parent.rglob("*.ipynb")]
    for name in CLAIMS:
        book = read(name)
        assert book.cells[0].cell_type == "markdown"
        assert book.cells[0].source.startswith("# ")
        assert all(not cell.get("outputs") for cell in book.cells)
        prose = [cell for cell in book.cells if cell.cell_type == "markdown"]
        assert len(prose) >= 4
