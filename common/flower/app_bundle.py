"""The bundle that stands where Flower wants an app: constant, and without a line of code.

What runs is the installed wardround; a study travels as the run configuration's ``study``. A site
neither unpacks nor imports the bundle, and may refuse any other by its hash.
"""

import hashlib
import io
import zipfile
from functools import lru_cache

STUDY_KEY, RUN_KEY = "study", "run"
# The earliest that zip knows: the same study makes the same bytes on any day.
_DATE = (1980, 1, 1, 0, 0, 0)
_PROJECT = f"""\
[project]
name = "wardround"
version = "1.0.0"
description = "The installed wardround runs, not this bundle."
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "wardround"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "wardround.server.app:app"
clientapp = "wardround.client.app:app"

[tool.flwr.app.config]
{STUDY_KEY} = ""
{RUN_KEY} = ""
"""


@lru_cache(maxsize=1)
def bundle() -> bytes:
    """Return the bundle; its bytes are the same on every machine."""
    stream, project = io.BytesIO(), _PROJECT.encode()
    files = {"pyproject.toml": project, "LICENSE": b"Apache-2.0\n"}
    lines = [f"{name},{_sha256(file)},{len(file) * 8}" for name, file in files.items()]
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {**files, ".info/CONTENT": "\n".join(lines).encode()}.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 0  # or the hash tells Windows from Linux
            archive.writestr(entry, content)
    return stream.getvalue()


def bundle_hash() -> str:
    """Return the bundle's SHA-256, 64 hexadecimal digits."""
    return _sha256(bundle())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
