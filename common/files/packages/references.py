"""How a study names what an installed package registers: ``package:name``. Nothing is looked up."""

import re
from dataclasses import dataclass
from typing import TypeVar

# What a package may register, by kind, and the group of its entry points.
GROUPS: dict[str, str] = {
    "networks": "wardround.networks",
    "losses": "wardround.losses",
    "transforms": "wardround.transforms",
    "metrics": "wardround.metrics",
    "strategies": "wardround.strategies",
    "datasets": "wardround.datasets",
}
# These mean something else before a colon: no distribution of that name can be asked for.
RESERVED = ("flower", "monai", "wardround")
MONAI = "monai:"  # before the name of one of MONAI's networks
PACKAGE_FORM = "^[a-z0-9]+(-[a-z0-9]+){0,15}$"
REFERENCE_FORM = "^([a-z0-9]+(?:-[a-z0-9]+){0,15}):([A-Za-z0-9][A-Za-z0-9_-]{0,63})$"
_REFERENCE = re.compile(REFERENCE_FORM)
_LONGEST = 64  # of a package's name
_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a package registers under a name.

    Attributes:
        package: A distribution's name, normalised: small letters, digits, single hyphens.
        name: Of the entry point.
    """

    package: str
    name: str


def reference_of(text: str) -> Reference | None:
    """Return what a name refers to; None for a name of Wardround's own."""
    found = _REFERENCE.fullmatch(text)
    if found is None or found[1] in RESERVED or len(found[1]) > _LONGEST:
        return None
    return Reference(found[1], found[2])


def normalised(name: str) -> str:
    """Return a distribution's name in the one form that a study writes it in (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class OpenTable(dict[str, _Entry]):
    """A table that also has an entry for each name that is not Wardround's own.

    These are ``package:name``, and ``monai:Class`` where MONAI is meant too. What such a name can
    do is found out when it is built; whether it exists, where its package is looked up. Listed are
    Wardround's own names alone.

    Args:
        own: By name.
        other: Of every other name.
        with_monai: Whether a class of MONAI may be named.
    """

    def __init__(self, own: dict[str, _Entry], other: _Entry, with_monai: bool = False) -> None:
        super().__init__(own)
        self._other, self._with_monai = other, with_monai

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and self._is_other(name))

    def __missing__(self, name: str) -> _Entry:
        if not self._is_other(name):
            raise KeyError(name)
        return self._of(name)

    def get(self, name: str, default: _Entry | None = None) -> _Entry | None:  # type: ignore[override] # one default alone
        """Return the entry of a name, or what stands for none."""
        return self[name] if name in self else default  # noqa: SIM401 - it would call itself

    def _is_other(self, name: str) -> bool:
        return reference_of(name) is not None or (self._with_monai and name.startswith(MONAI))

    def _of(self, name: str) -> _Entry:
        return self._other
