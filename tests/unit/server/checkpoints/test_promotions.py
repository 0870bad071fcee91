"""Which model is in use: only one that goes on from it, and at which no site falls, replaces it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from tests.support.clinic.model_folders import CLASSIFIES, untrained_model

from wardround.common.errors import InputError, ModelError
from wardround.common.models.model_folder import ModelFolder, open_model_folder
from wardround.server.checkpoints.promotions import RECORD_FILE, Placed, Shelf, SiteFall

GOOD = SiteFall("north", 1, 0.9, 0.895, 0.005, 0.01)
BAD = SiteFall("south", 1, 0.9, 0.85, 0.05, 0.01)


def first(folder: Path) -> ModelFolder:
    return open_model_folder(untrained_model(folder / "first", CLASSIFIES))


def second(folder: Path, before: ModelFolder, seed: int = 5) -> ModelFolder:
    held = {"wave": 2, "parent": before.study.digest, "model": before.contract.parameters}
    content = {
        **CLASSIFIES,
        "model": {**CLASSIFIES["model"], "weights_sha256": "c" * 64},
        "continual": held,
    }
    return open_model_folder(untrained_model(folder / f"second-{seed}", content, seed))


def test_a_model_goes_into_use_and_back_and_the_record_tells_both(tmp_path: Path) -> None:
    shelf, one = Shelf(tmp_path / "shelf"), first(tmp_path)
    two = second(tmp_path, one)
    assert shelf.current is None
    shelf.promote(one, ())
    shelf.promote(two, (GOOD,))
    assert shelf.current is not None
    assert shelf.current.model == two.digest
    before = (tmp_path / "shelf" / RECORD_FILE).read_bytes()

    shelf.roll_back()
    assert shelf.current.model == one.digest
    assert open_model_folder(shelf.model_path(one.digest)).digest == one.digest
    assert (tmp_path / "shelf" / RECORD_FILE).read_bytes().startswith(before)
    kinds = [(placed.kind, placed.model) for placed in shelf.record()]
    assert kinds == [("promote", one.digest), ("promote", two.digest), ("rollback", one.digest)]
    assert shelf.record()[1].falls == (GOOD,)

    third = second(tmp_path, one, seed=6)
    shelf.promote(third, (GOOD,))  # from the model that is in use again
    shelf.roll_back()
    assert shelf.current.model == one.digest
    with pytest.raises(InputError, match="the first of its line"):
        shelf.roll_back()


def test_a_site_that_falls_beyond_its_margin_keeps_the_old_model(tmp_path: Path) -> None:
    shelf, one = Shelf(tmp_path / "shelf"), first(tmp_path)
    shelf.promote(one, ())
    two = second(tmp_path, one)
    with pytest.raises(InputError, match=r"at 1 of 2 places: south, wave 1 .*0.900 to 0.850"):
        shelf.promote(two, (GOOD, BAD))
    undefined = replace(GOOD, fall=float("nan"))
    with pytest.raises(InputError, match="falls beyond the margin"):
        shelf.promote(two, (undefined,))
    with pytest.raises(InputError, match="nobody can tell whether a site falls"):
        shelf.promote(two, ())
    assert shelf.current is not None
    assert shelf.current.model == one.digest


def test_a_site_of_few_patients_holds_a_model_up_only_where_all_together_fall(
    tmp_path: Path,
) -> None:
    shelf, one = Shelf(tmp_path / "shelf"), first(tmp_path)
    shelf.promote(one, ())
    two = second(tmp_path, one)
    few = replace(BAD, reach=0.2, patients=3)
    surely = replace(BAD, reach=0.03, patients=300)
    together = SiteFall("all sites", 1, 0.9, 0.91, -0.01, 0.01)
    worse = replace(together, now=0.85, fall=0.05)
    assert (few.is_doubtful, few.is_beyond) == (True, False)
    assert (surely.is_doubtful, surely.is_beyond) == (False, True)
    for falls, said in (
        ((GOOD, surely, together), "falls beyond the margin at 1 of 2 places"),
        ((GOOD, few, worse), r"too few patients to tell, and all sites, wave 1 .*0.900 to 0.850"),
        ((GOOD, few), "what all sites have together is not known"),
        ((together,), "nobody can tell whether a site falls"),
    ):
        with pytest.raises(InputError, match=said):
            shelf.promote(two, falls)
    placed = shelf.promote(two, (GOOD, few, together))
    assert shelf.record()[-1] == placed
    assert placed.falls == (GOOD, few, together)


def test_a_line_of_an_earlier_version_without_intervals_is_read_still() -> None:
    said = {name: getattr(GOOD, name) for name in ("site", "wave", "before", "now", "fall")}
    line = {"kind": "promote", "model": "a" * 64, "study": "b" * 64, "parent": "", "time": "t"}
    content = {**line, "falls": [{**said, "margin": GOOD.margin, "split": "test"}]}
    assert TypeAdapter(Placed).validate_python(content).falls == (GOOD,)


def test_only_the_child_of_the_model_in_use_replaces_it(tmp_path: Path) -> None:
    shelf, one = Shelf(tmp_path / "shelf"), first(tmp_path)
    shelf.promote(one, ())
    with pytest.raises(InputError, match="in use already"):
        shelf.promote(one, ())
    two = second(tmp_path, one)
    grandchild = second(tmp_path, two, seed=8)
    with pytest.raises(InputError, match="does not go on from it"):
        shelf.promote(grandchild, (GOOD,))


def test_a_changed_record_or_model_is_noticed(tmp_path: Path) -> None:
    shelf, one = Shelf(tmp_path / "shelf"), first(tmp_path)
    shelf.promote(one, ())
    shelf.promote(second(tmp_path, one), (GOOD,))
    path = tmp_path / "shelf" / RECORD_FILE
    lines = path.read_text().splitlines()
    kept = "\n".join(lines) + "\n"

    said = json.loads(lines[0])
    path.write_text(json.dumps({**said, "model": "f" * 64}) + "\n")
    with pytest.raises(InputError, match=r"line 1 of .* is not what was written there"):
        shelf.record()

    path.write_text(kept + lines[0][:40])  # a process was killed while it wrote
    assert len(shelf.record()) == 2
    weights = shelf.model_path(one.digest) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelError, match="was changed after it was written"):
        shelf.roll_back()
    assert len(shelf.record()) == 2


def test_an_empty_shelf_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model in use"):
        Shelf(tmp_path / "none").roll_back()
