"""Whether a site can take part: every check, in an order in which faults are best mended."""

from functools import partial
from pathlib import Path

from wardround.client.doctor.check import Check, run_check
from wardround.client.doctor.connection import check_connection
from wardround.client.doctor.folder import FOLDER_CHECKS
from wardround.client.doctor.neighbours import check_one_ledger
from wardround.client.site.folder import Site, open_site


def examine(folder: Path) -> tuple[Check, ...]:
    """Run all checks on a site folder; nothing is changed in it."""
    opened: list[Site] = []

    def site_file() -> str:
        opened.append(open_site(folder))
        return f"{opened[0].name}, device {opened[0].settings.device}"

    checks = [run_check("site.toml", site_file)]
    if not opened:
        return tuple(checks)
    site = opened[0]
    checks += [run_check(name, partial(run, site)) for name, run in FOLDER_CHECKS.items()]
    checks.append(run_check("one ledger", partial(check_one_ledger, site)))
    return (*checks, *check_connection(site))
