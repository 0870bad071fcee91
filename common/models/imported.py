"""A model folder of the weights that a MONAI bundle holds."""

from pathlib import Path

import wardround
from wardround.common.errors import ModelError
from wardround.common.models.bundle import read_bundle
from wardround.common.models.card import Origin, licence_text, model_card
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import write_model_folder
from wardround.common.parameters.arithmetic import digest
from wardround.common.runtime.printable import printable
from wardround.common.study.study import Study

_MOST_LICENCE = 20_000  # characters
_NOT_KNOWN = "it comes from a bundle, which does not say what its training images looked like"


def import_bundle(bundle: Path, study: Study | None, out: Path) -> str:
    """Write a model folder of a bundle's weights; return its digest.

    Args:
        study: What the weights are for; None for a bundle that wardround wrote.

    Raises:
        ModelError: The bundle is refused, see :func:`read_bundle`, or the folder exists.
    """
    if out.exists():
        msg = f"{out} exists already: choose another --out."
        raise ModelError(msg)
    chosen, weights, metadata = read_bundle(bundle, study)
    name = printable(str(metadata.get("name") or bundle.resolve().name), 80)
    contract = Contract(
        wardround=wardround.__version__,
        name=name,
        study=study_content(chosen),
        study_digest=chosen.digest,
        parameters=digest(weights),
        seen_note=_NOT_KNOWN,
    )
    said = printable(str(metadata.get("description") or "nothing"), 1_000)
    origin = Origin(
        (f"the bundle {name}; it says of itself: {said}",),
        ("nothing is known of what was promised to patients",),
        _licence(bundle),
    )
    texts = model_card(contract, chosen, origin, ()), licence_text(origin.licence)
    return write_model_folder(out, weights, contract, (), texts)


def _licence(bundle: Path) -> str:
    path = bundle / "LICENSE"
    if path.is_symlink() or not path.is_file():
        return "The bundle holds no licence: ask whoever made it."
    with path.open(encoding="utf-8", errors="replace") as stream:
        return printable(stream.read(_MOST_LICENCE), _MOST_LICENCE, lines=True)
