"""The operators' page put together: its regions, what may be done, the reports of its runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.common.html.live.page import Document, LivePage, Region
from wardround.server.operators.page.actions import actions
from wardround.server.operators.page.asked_server import AskedServer
from wardround.server.operators.page.course import course_part, events_part, now_part
from wardround.server.operators.page.forms import forms
from wardround.server.operators.page.lookout import Lookout, ShownRun
from wardround.server.operators.page.overview import runs_part, server_part, sites_part
from wardround.server.operators.page.privacy_told import PrivacyTold
from wardround.server.operators.report.page import page_of

REGIONS = (
    Region("server"),
    Region("now", "Now"),
    Region("sites", "Sites"),
    Region("runs", "Runs"),
    Region("course", "Rounds"),
    Region("events", "What happened"),
)


def operators_page(
    server: AskedServer,
    lookout: Lookout,
    title: str,
    may_act: bool,
    folder: Path | None = None,
) -> LivePage:
    """Return the page of a server.

    Args:
        lookout: Looks at the server for it.
        title: What the server is called.
        may_act: Whether studies may be submitted, stopped and resumed from it.
        folder: The server folder, where sites may be invited too.
    """
    drawing = _Drawing(lookout, may_act)
    return LivePage(
        title=title,
        kicker="Wardround server",
        regions=REGIONS,
        draw=drawing.draw,
        still=forms(folder is not None) if may_act else "",
        actions=actions(server, folder) if may_act else {},
        documents=_Reports(server),
    )


class _Drawing:
    """Draws the regions; the course, which is long, only when something of it is new."""

    def __init__(self, lookout: Lookout, may_act: bool) -> None:
        self._lookout, self._may_act = lookout, may_act
        self._privacy = PrivacyTold()
        self._course: tuple[tuple[object, ...], str] = ((), self._draw_course(()))

    def draw(self) -> dict[str, str]:
        """Return every region as it is now."""
        sight = self._lookout.look()
        return {
            "server": server_part(sight),
            "now": now_part(sight.shown),
            "sites": sites_part(sight),
            "runs": runs_part(sight.runs, self._may_act),
            "course": self._drawn_course(sight.shown),
            "events": events_part(sight.shown),
        }

    def _drawn_course(self, shown: tuple[ShownRun, ...]) -> str:
        # The same objects, which are kept; comparing their thousands of rows costs more.
        known = [one.record for one in shown]
        words = [self._privacy.words(record) for record in known if record is not None]
        records = (*known, *words)
        before, html = self._course
        if len(before) != len(records) or any(
            a is not b for a, b in zip(before, records, strict=True)
        ):
            html = self._draw_course(shown)
            self._course = records, html
        return html

    def _draw_course(self, shown: tuple[ShownRun, ...]) -> str:
        return course_part(shown, self._privacy.words)


@dataclass(frozen=True, slots=True)
class _Reports(Mapping[str, Callable[[], Document | None]]):
    """The report of each run as a file of the page: ``RUN.html``."""

    server: AskedServer

    def __getitem__(self, name: str) -> Callable[[], Document | None]:
        run = name.removesuffix(".html")
        if run == name:
            raise KeyError(name)
        return lambda: self._report(run)

    def __iter__(self) -> Iterator[str]:
        return iter(())  # they are too many to list, and nobody asks

    def __len__(self) -> int:
        return 0

    def _report(self, run: str) -> Document | None:
        try:
            return Document(page_of(self.server.record(run)).encode())
        except WardroundError:
            return None
