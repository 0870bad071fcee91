"""The manifest of a scanned folder, written where there is none."""

import csv
import io
from pathlib import Path

from wardround.client.clinic.onboarding.scan.found import Found
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, create_file


def write_manifest(found: Found, site_folder: Path | None) -> Path:
    """Write the manifest into a site folder, or into the scanned folder; return where it is.

    Raises:
        InputError: There is one already, or it cannot be written.
    """
    if site_folder is None:
        path, root = found.folder / "manifest.csv", found.folder
    else:
        site = open_site(site_folder)
        path, root = site.manifest_path, site.data_root
    lines = [
        [_cell(found, root, name, row.get(name, "")) for name in found.columns]
        for row in found.rows
    ]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([list(found.columns), *lines])
    try:
        create_file(path, stream.getvalue().encode(), BY_UMASK)
    except FileExistsError:
        msg = f"{path} is there already: move it away, then write again."
        raise InputError(msg) from None
    except OSError as error:
        msg = f"cannot write {path} ({error.strerror}): give a site folder that can be written to."
        raise InputError(msg) from None
    return path


def _cell(found: Found, root: Path, column: str, text: str) -> str:
    is_path = column == "mask" or column == "image" or column.startswith("image.")
    if not is_path or not text or root == found.folder:
        return text
    path = (found.folder / text).resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
