"""Whether a site can take part: every check, in an order in which faults are best mended."""

from functools import partial
from pathlib import Path

from wardround.client.doctor.check import Check, run_check
from wardround.client.doctor.connection import check_connection
from wardround.client.doctor.folder import FOLDER_CHECKS
from wardround.client.doctor.images import Progress, check_images
from wardround.client.doctor.manifest import is_table
from wardround.client.doctor.neighbours import check_one_ledger
from wardround.client.site.folder import Site, open_site

# What takes no time, and stands in the way of any study.
_AT_HAND = ("account", "disk", "data folder", "policy", "certificate")


def faults_at_hand(folder: Path) -> tuple[Check, ...]:
    """Return those of the doctor's checks that fail and can be asked at any moment.

    Raises:
        DataError: It is no site folder.
    """
    site = open_site(folder)
    checks = (run_check(name, partial(FOLDER_CHECKS[name], site)) for name in _AT_HAND)
    return tuple(check for check in checks if check.status == "fail")


def examine(
    folder: Path, address: str = "", quick: bool = False, progress: Progress | None = None
) -> tuple[Check, ...]:
    """Run all checks on a site folder; nothing is changed in it but the list of opened files.

    Args:
        address: Of the server, "host:port", where it is not that of ``site.toml``.
        quick: Whether to leave the images unopened.
        progress: Is told how many images were opened.
    """
    opened: list[Site] = []

    def site_file() -> str:
        opened.append(open_site(folder))
        settings = opened[0].settings
        return f"{opened[0].name}, device {', '.join(settings.devices) or settings.device}"

    checks = [run_check("site.toml", site_file)]
    if not opened:
        return tuple(checks)
    site = opened[0]
    for name, run in FOLDER_CHECKS.items():
        checks.append(run_check(name, partial(run, site)))
        if name == "manifest" and not quick and is_table(site):
            checks.append(run_check("images", partial(check_images, site, progress)))
    checks.append(run_check("one ledger", partial(check_one_ledger, site)))
    return (*checks, *check_connection(site, address))
