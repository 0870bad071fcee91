"""Writes a run's model card and data sheet, as Markdown and as JSON, into its folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.models.card import card_fields, card_text
from wardround.common.models.contract import Contract
from wardround.common.models.documents.field import DocumentField
from wardround.common.models.model_folder import CONTRACT
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.documents.data_sheet import sheet_fields
from wardround.simulations.report.documents.origin import measured_of, origin_of
from wardround.simulations.run_files.folder import FEDERATED

MODEL_CARD, DATA_SHEET = "model-card", "data-sheet"


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a run.

    Attributes:
        model_card: Of the federated model; empty where the run kept none.
    """

    model_card: tuple[DocumentField, ...]
    data_sheet: tuple[DocumentField, ...]


def make_documents(contents: RunContents) -> Documents:
    """Return the documents of a run."""
    contract, study = kept_contract(contents.folder), contents.study
    card: tuple[DocumentField, ...] = ()
    if contract is not None and study is not None:
        measured = tuple(measured_of(contents, FEDERATED))
        card = card_fields(contract, study, origin_of(contents, FEDERATED), measured)
    return Documents(card, sheet_fields(contents))


def write_documents(contents: RunContents, documents: Documents) -> tuple[Path, ...]:
    """Write the documents into the run folder; return the Markdown files.

    A run that kept no model has a data sheet alone.
    """
    title = contents.title
    return tuple(
        _write(contents.folder / name, f"{title}: {words}", fields)
        for name, words, fields in (
            (MODEL_CARD, "model card of the federated model", documents.model_card),
            (DATA_SHEET, "data sheet", documents.data_sheet),
        )
        if fields
    )


def kept_contract(run: Path) -> Contract | None:
    """Return the contract of a run's federated model, of a site's own where each has one."""
    for folder in sorted((run / "models").glob(f"{FEDERATED}*/"), key=lambda path: path.name):
        try:
            return Contract.model_validate_json((folder / CONTRACT).read_bytes())
        except (OSError, ValidationError):
            continue
    return None


def _write(path: Path, title: str, fields: Sequence[DocumentField]) -> Path:
    rows = [{**asdict(one), "known_by": one.known_by, "items": list(one.items)} for one in fields]
    content = json.dumps({"title": title, "fields": rows}, indent=2, ensure_ascii=False)
    replace_file(path.with_suffix(".json"), content + "\n", BY_UMASK, durable=False)
    markdown = path.with_suffix(".md")
    replace_file(markdown, card_text(title, fields), BY_UMASK, durable=False)
    return markdown
