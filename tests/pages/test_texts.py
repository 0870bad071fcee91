"""Files, tables and messages that the pages show: taken by what reads or writes them."""

import ast
import csv
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pages.blocks import ROOT, Block, blocks_of, pages
from tests.pages.story import Place as _Place
from tests.pages.story import followed
from tests.support.studies.tiny_study import Said, TinyStudy

import wardround
from wardround.client.clinic.onboarding.rules import ImportRules
from wardround.client.clinic.pacs.settings import PacsFile
from wardround.client.policy.policy import Policy
from wardround.client.site.folder import SiteFile
from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteInfo
from wardround.common.monitoring.trackers.user_file import UserFile
from wardround.common.study.loading import parse_study
from wardround.server.settings import ServerFile
from wardround.server.sites.site_info import check_site_info
from wardround.simulations.studies import find_study

pytestmark = pytest.mark.pages
Table = Mapping[str, Any]
BLOCKS = [block for page in pages() for block in blocks_of(page.relative_to(ROOT))]


def of_language(language: str) -> list[Any]:
    found = [block for block in BLOCKS if block.language == language]
    return [pytest.param(one, id=f"{one.page}:{one.line}") for one in found]


def _study(said: Table) -> None:
    """A part of a study is held in a whole one that it fits to."""
    parse_study(_merged(_whole_of(said), said))


def _whole_of(said: Table) -> Table:
    keys = {key for table in said.values() for key in table}
    if "labels" in keys:
        classes = ["background", "liver", "kidney"]
        return {
            "study": {"name": "organs", "task": "segmentation"},
            "data": {"dimensions": 3, "size": [32, 32, 32], "classes": classes},
            "model": {"network": "unet"},
        }
    if "pack" in keys:
        sex = {"name": "sex", "values": ["f", "m"]}
        return {
            "study": {"name": "table", "task": "classification"},
            "data": {"kind": "table", "classes": ["no", "yes"], "covariates": [sex, _AGE]},
            "model": {"network": "mlp"},
        }
    is_image = {"prevalence", "shift"} & keys
    return find_study("pneumonia-xray" if is_image else "heart-disease").model_dump(mode="json")


def _whole_study(said: Table) -> None:
    parse_study(said)


def _of_a_table(said: Table) -> None:
    """A part of a study of clinical values, whatever its task."""
    data = {"kind": "table", "covariates": [_AGE]}
    study = {"name": "table", "task": "regression"}
    parse_study(_merged({"study": study, "data": data, "model": {"network": "mlp"}}, said))


def _of_images(said: Table) -> None:
    """A part of a study of images, whatever its network and its data."""
    parts = {
        "study": {"name": "images", "task": "classification"},
        "data": {"classes": ["no", "yes"], "size": [64, 64]},
        "model": {"network": "resnet18"},
    }
    given = _merged(parts, said)
    digest = given["model"].get("weights_sha256", "")
    if digest.endswith("..."):  # the page has its first digits
        given["model"]["weights_sha256"] = digest.rstrip(".").ljust(64, "0")
    if given["study"]["task"] == "pretraining":
        del given["data"]["classes"]
    parse_study(given)


def _combat(said: Table) -> None:
    """What ComBat asks for, in the study of the page."""
    known = find_study("heart-disease").model_dump(mode="json", exclude_defaults=True)
    parse_study(_merged(known, said))


def _lacking(said: Table) -> None:
    """What simulated hospitals lack, in the study of the page."""
    page = "docs/how-to/combine-modalities.md"
    first = next(one for one in BLOCKS if one.page == page and one.language == "toml")
    parse_study(_merged(tomllib.loads(first.text), said))


def _server(said: Table) -> None:
    ServerFile.model_validate({"name": "x", "public_names": ["localhost"], **said})


def _site(said: Table) -> None:
    SiteFile.model_validate({"name": "north", **said})


def _archive(said: Table) -> None:
    # What is beside it on the page, or on another, names the archive.
    named = {} if "dicomweb" in said else {"host": "pacs", "port": 104, "title": "PACS"}
    PacsFile.model_validate({**({"classic": named} if named else {}), **said})


def _policy(said: Table) -> None:
    Policy.model_validate(said)


def _rules(said: Table) -> None:
    ImportRules.model_validate({"channels": [{"modality": "MR"}], **said})


def _user(said: Table) -> None:
    UserFile.model_validate(said)


# What reads each TOML block of a page, in their order.
READERS: dict[str, tuple[Callable[[Table], None], ...]] = {
    "docs/concepts/ledger.md": (_site,),
    "docs/how-to/calibrate-and-decide.md": (_study,),
    "docs/how-to/combine-modalities.md": (_whole_study, _lacking),
    "docs/how-to/continue-a-study.md": (_of_images,),
    "docs/how-to/detect.md": (_whole_study, _whole_study),
    "docs/how-to/harmonise.md": (_combat,),
    "docs/how-to/import-images.md": (_rules, _whole_study, _rules),
    "docs/how-to/masked-sums.md": (_study,),
    "docs/how-to/monitor.md": (_server, _site, _server),
    "docs/how-to/own-network.md": (_policy, _of_images),
    "docs/how-to/pacs.md": (_archive, _archive, _archive),
    "docs/how-to/regression-and-survival.md": (
        _of_a_table,
        _of_a_table,
        _whole_study,
        _whole_study,
    ),
    "docs/how-to/run-a-site.md": (_site,),
    "docs/how-to/simulate.md": (_study,),
    "docs/how-to/track-runs.md": (_user, _user),
    "docs/how-to/transfer.md": (_of_images, _of_images, _of_images, _of_images),
    "docs/how-to/watch-a-model.md": (_archive,),
    "docs/how-to/worth-joining.md": (_study,),
    "docs/reference/evidence-packs.md": (_study,),
    "docs/reference/site-folder.md": (_site, _site, _site),
    "docs/reference/study-file.md": (_study, _study),
}
_AGE = {"name": "age", "mean": 55, "scale": 15}


def _merged(whole: Table, part: Table) -> dict[str, Any]:
    merged = dict(whole)
    for key, value in part.items():
        inner = whole.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        merged[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return merged


@pytest.mark.parametrize("block", of_language("toml"))
def test_a_file_of_the_pages_is_taken_by_what_reads_it(block: Block) -> None:
    beside = [one for one in BLOCKS if (one.page, one.language) == (block.page, "toml")]
    readers = READERS.get(block.page, ())
    assert len(readers) == len(beside), "say in READERS what reads the block"
    readers[beside.index(block)](tomllib.loads(block.text))


@pytest.mark.parametrize("block", [*of_language("json"), *of_language("yaml")])
def test_data_of_the_pages_parses(block: Block) -> None:
    assert (json.loads if block.language == "json" else yaml.safe_load)(block.text)


@pytest.mark.parametrize("block", of_language("csv"))
def test_a_manifest_of_the_pages_is_one(block: Block) -> None:
    rows = list(csv.reader(block.text.splitlines()))
    assert rows[0][0] == "patient"
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize("block", of_language("bibtex"))
def test_the_citation_is_that_of_the_repository(block: Block) -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    cited = dict(re.findall(r"(\w+)\s*= \{(.*)\}", block.text))
    assert cited["title"] == said["title"]
    assert cited["version"] == said["version"] == wardround.__version__


def test_the_commands_for_contributors_are_there(place: _Place) -> None:
    """Make says what it would do, which needs every target; the tests of the page are there."""
    with followed("CONTRIBUTING.md", place) as story:
        while story.left:
            words = shlex.split(story.take())
            if words[0] == "make":
                place.run(f"make --dry-run -C {ROOT} {words[1]}")
            else:
                assert words[0] == ".venv/bin/pytest"
                place.run(f"cd {ROOT} && python -m pytest -q -p no:cacheprovider {words[1]}")


def test_a_refusal_is_worded_as_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of another release, made; that of another Flower, as the server's log would have it."""
    from wardround.server.link import gates

    shown = [one.text.strip() for one in blocks_of("docs/how-to/upgrade.md") if one.language]
    study = find_study("heart-disease")
    monkeypatch.setattr(wardround, "__version__", "0.1.3")
    with pytest.raises(RunError) as refused:
        check_site_info(SiteInfo("south", "0.2.0", study.digest, 10), study)
    assert str(refused.value) == shown[0]
    tree = ast.parse(Path(gates.__file__).read_text(encoding="utf-8"))
    texts = [one.value for one in ast.walk(tree) if isinstance(one, ast.Constant)]
    (form,) = [one for one in texts if isinstance(one, str) and one.startswith("refused site=")]
    flowers = " or ".join(gates.TESTED_FLOWER)
    assert form % ("south", "1.40.2", "1.41.0", flowers, gates.INSTALL_FLOWER) == shown[1]
    assert len(shown) == 2


def test_a_wrong_label_is_refused_in_the_words_of_the_page(
    tiny_study: TinyStudy, wardround: Callable[..., Said]
) -> None:
    page = "docs/reference/site-folder.md"
    shown = next(one.text for one in blocks_of(page) if one.text.startswith("wardround:"))
    rows = tiny_study.manifest.read_text(encoding="utf-8").splitlines()
    rows[8] = rows[8].replace("normal", "odd").replace("abodd", "odd")
    tiny_study.manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    said = wardround("simulate", tiny_study.study, "--out", tiny_study.folder / "run")
    assert said.code == 2
    expected = " ".join(shown.split()).replace("/data/mine/manifest.csv", str(tiny_study.manifest))
    assert expected in " ".join(said.err.split())


def test_the_tree_of_a_site_folder_names_what_the_code_names() -> None:
    page = "docs/reference/site-folder.md"
    shown = next(one.text for one in blocks_of(page) if one.text.startswith("north/"))
    names = re.findall(r"^  ([\w./]+)  ", shown, re.MULTILINE)
    assert len(names) > 8
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "client").rglob("*.py")
    ) + "".join(path.read_text(encoding="utf-8") for path in (ROOT / "common").rglob("*.py"))
    assert not [name for name in names if f'"{name.strip("/")}"' not in source]
