"""What a site put under a mask once and never does again, by hashes over all runs of all studies.

An update in two sums of other sites would be their difference; so would the metrics of one model,
which are the same each time.
"""

from pathlib import Path

from wardround.client.site.idle_masks import MASKING_FOLDER
from wardround.common.files.atomic import flush_folder, make_private_folder, replace_file

UPDATES, MODELS = "masked", "measured"  # what was masked, and of which models metrics were
_HASH_BYTES = 32


def masked_before(site: Path, what: str) -> list[bytes]:
    """Return the SHA-256 of all that was masked, in its order.

    Args:
        site: The site folder.
        what: ``UPDATES`` or ``MODELS``.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        said = (site / MASKING_FOLDER / what).read_bytes()
    except FileNotFoundError:
        return []
    return [said[at : at + _HASH_BYTES] for at in range(0, len(said), _HASH_BYTES)]


def remember_masked(site: Path, what: str, before: list[bytes], new: bytes) -> None:
    """Write down one more hash, before anything of it is sent.

    Args:
        before: As :func:`masked_before` gave it.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = site / MASKING_FOLDER
    make_private_folder(folder)
    replace_file(folder / what, b"".join([*before, new]))
    flush_folder(folder)
