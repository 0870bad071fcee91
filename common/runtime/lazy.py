"""Names that a package offers without importing what they need before they are used."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__`` (PEP 562) for names from its modules.

    A package of ours imports nothing of weight: ``wardround --help`` must not wait for torch. Type
    checkers read the same names from imports under ``TYPE_CHECKING``.

    Args:
        package: The package's ``__name__``.
        homes: For each name the module that defines it; of a module of the package itself its own
            whole name.
    """

    def find(name: str) -> object:
        if name not in homes:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        home = import_module(homes[name])
        return home if homes[name] == f"{package}.{name}" else getattr(home, name)

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *homes})

    return find, names
