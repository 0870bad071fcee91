"""Which code runs here: one hash over the installed files of wardround."""

import hashlib
from functools import cache
from pathlib import Path

import wardround

_ENDINGS = (".py", ".toml", ".css", ".js", ".jinja")


@cache
def code_digest() -> str:
    """Return the SHA-256 of the package: of each file's name and content, in order of names.

    Two installations with the same digest run the same code of ours; packages beside it have
    versions of their own.
    """
    root, total = Path(wardround.__file__).resolve().parent, hashlib.sha256()
    for folder in ("client", "common", "server", "simulations"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in _ENDINGS and path.is_file():
                name = path.relative_to(root).as_posix().encode()
                content = hashlib.sha256(path.read_bytes()).hexdigest().encode()
                total.update(name + b"\0" + content + b"\n")
    return total.hexdigest()
