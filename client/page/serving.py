"""The hospital's page, served to browsers of its own machine until it is told to stop.

A process beside the daemon, which it asks over the socket that only the site's own account opens:
it works while no daemon runs, and nothing that goes wrong with it reaches the daemon.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from wardround.client.page.actions import actions_of
from wardround.client.page.errands import Errands
from wardround.client.page.reading import SiteReader
from wardround.client.page.regions import REGIONS, regions_of
from wardround.client.site.folder import open_site
from wardround.common.html.live.page import LivePage, Region
from wardround.common.html.live.serving import live_page

_INTERVAL_SECONDS = 1.0


def site_page(folder: Path, errands: Errands, may_decide: bool) -> LivePage:
    """Return the page of a site folder.

    Args:
        folder: The site folder.
        errands: Does what takes a while.
        may_decide: Whether studies may be approved and rejected on it.

    Raises:
        DataError: It is no site folder.
    """
    reader, lock = SiteReader(folder, errands, may_decide), threading.Lock()

    def draw() -> Mapping[str, str]:
        with lock:  # several readers may ask at once
            return regions_of(reader.look())

    decides = "decisions are allowed" if may_decide else "read-only"
    return LivePage(
        title=open_site(folder).name,
        kicker=f"Wardround: this hospital's own page ({decides})",
        regions=tuple(Region(name, announced=name == "summary") for name in REGIONS),
        draw=draw,
        actions=actions_of(errands, may_decide),
        interval_seconds=_INTERVAL_SECONDS,
    )


def serve_site_page(folder: Path, port: int, may_decide: bool, tell: Callable[[str], None]) -> None:
    """Serve the page of a site folder until Ctrl-C.

    Args:
        folder: The site folder.
        port: Of this machine; 0 takes a free one.
        may_decide: Whether studies may be approved and rejected on it.
        tell: Is given the link.

    Raises:
        DataError: It is no site folder.
        InputError: The port is taken.
        RunError: The page cannot be served.
    """
    errands = Errands(folder)
    try:
        with live_page(site_page(folder, errands, may_decide), port) as served:
            tell(served.link)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    finally:
        errands.close()
