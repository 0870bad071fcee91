"""Of which models a site's metrics were put under a mask: of each once, whoever else is in the sum.

What is measured of one model is the same each time. In two sums of other sites it would be their
difference.
"""

from pathlib import Path

from wardround.client.site.idle_masks import MASKING_FOLDER
from wardround.common.files.atomic import make_private_folder, replace_file

_MEASURED = "measured"  # SHA-256 of one model after the other, over all runs
_HASH_BYTES = 32


def is_measured_before(site: Path, model: bytes) -> bool:
    """Return whether a model's metrics were put under a mask before.

    Args:
        site: The site folder.
        model: SHA-256 of the model.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        said = (site / MASKING_FOLDER / _MEASURED).read_bytes()
    except FileNotFoundError:
        return False
    return any(said[at : at + _HASH_BYTES] == model for at in range(0, len(said), _HASH_BYTES))


def note_measured(site: Path, model: bytes) -> None:
    """Remember it, before anything of it is sent.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = site / MASKING_FOLDER
    make_private_folder(folder)
    try:
        said = (folder / _MEASURED).read_bytes()
    except FileNotFoundError:
        said = b""
    replace_file(folder / _MEASURED, said + model)
