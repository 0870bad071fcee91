"""Site folders of the tests, and what they compare."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pydicom
from tests.pacs.orthanc import PASSWORD, TITLE, USER, Orthanc

WEB = """
[dicomweb]
url = "{url}"
user = "{user}"
password_file = "pacs-password"
timeout_seconds = 20
"""
CLASSIC = """
[classic]
host = "127.0.0.1"
port = {port}
title = "{title}"
retrieve = "{retrieve}"
timeout_seconds = 20

[receiver]
port = {own_port}
allowed = [{{ title = "{title}", address = "127.0.0.1" }}]
"""


def site_folder(folder: Path, archive: Orthanc, protocol: str = "web") -> Path:
    """Write a site folder that knows an archive.

    Args:
        protocol: "web", "get" or "move".
    """
    folder.mkdir(exist_ok=True)
    (folder / "site.toml").write_text('name = "north"\n', encoding="utf-8")
    password = folder / "pacs-password"
    password.write_text(PASSWORD + "\n", encoding="utf-8")
    password.chmod(0o600)
    if protocol == "web":
        text = WEB.format(url=archive.url, user=USER)
    else:
        (own_port,) = archive.peers.values()
        text = CLASSIC.format(
            port=archive.dicom_port, title=TITLE, retrieve=protocol, own_port=own_port
        )
    (folder / "pacs.toml").write_text(text, encoding="utf-8")
    return folder


def pixels(paths: Iterable[Path]) -> dict[str, str]:
    """Return the hash of each object's pixels; its bytes change with the transfer syntax."""
    read = [pydicom.dcmread(path) for path in paths]
    return {
        str(one.SOPInstanceUID): hashlib.sha256(one.pixel_array.tobytes()).hexdigest()
        for one in read
    }
