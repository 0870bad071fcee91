"""The operators' page at an operator's desk: it asks the server by the API, and nobody else."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from wardround.common.html.live.serving import live_page
from wardround.server.operators.client import ServerLine
from wardround.server.operators.page.lookout import Lookout
from wardround.server.operators.page.operators_page import operators_page
from wardround.server.settings import SERVER_FILE


def desk_page(
    line: ServerLine,
    port: int,
    may_act: bool,
    tell: Callable[[str], None],
    wait: Callable[[], object] | None = None,
) -> None:
    """Serve the page of a server to this machine until Ctrl-C.

    Args:
        line: To the server; over it the server knows who acts, and writes it down.
        port: Of loopback; 0 takes a free one.
        may_act: Whether the page is for more than reading.
        tell: Is told the link.
        wait: Returns when it is enough; None for never.

    Raises:
        InputError: The port cannot be used.
        RunError: The server does not answer.
    """
    logging.getLogger("wardround").setLevel(logging.INFO)
    title = line.server().name
    folder = Path(line.place)
    lookout = Lookout(line)
    page = operators_page(
        line, lookout, title, may_act, folder if (folder / SERVER_FILE).is_file() else None
    )
    try:
        with live_page(page, port) as served:
            tell(served.link)
            (wait or threading.Event().wait)()
    except KeyboardInterrupt:
        return
    finally:
        lookout.close()
