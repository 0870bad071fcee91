"""A reader's page: one case of a queue after the other, with neither arm, old label nor prediction.

It lies behind the link that is printed, on this machine alone, as the hospital's page does. What is
said is written down at once; a page that is closed loses nothing but the mask in hand.
"""

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.inference.prediction import Segmented
from wardround.client.clinic.inference.results import write_mask
from wardround.client.clinic.review.cases import Case
from wardround.client.clinic.review.handing_out import grey_of, labels_of
from wardround.client.clinic.review.masks import image_of
from wardround.client.clinic.review.opinions import Committee
from wardround.client.clinic.review.record import Opinion, check_reader
from wardround.client.clinic.review.taking import Desk
from wardround.client.data.reading.image import Image
from wardround.client.page.review.drawing import (
    Slices,
    pack_labels,
    picture_address,
    unpack_labels,
)
from wardround.client.site.folder import REVIEW_FOLDER
from wardround.common.errors import DataError, InputError
from wardround.common.files.atomic import make_private_folder
from wardround.common.html.live.page import Document, Fields, LivePage, Region, Told
from wardround.common.html.live.serving import live_page
from wardround.common.html.parts import Html, form, joined, tag, void
from wardround.common.runtime.printable import printable

_INTERVAL_SECONDS = 0.3
_CHANGED = "another case is shown by now: look again."
_BRUSH_HELP = (
    "Draw with the mouse or a finger. With the keyboard: Tab to the image, arrows move the brush, "
    "space draws, digits choose the class (0 erases), + and - change the brush, z takes back."
)


@dataclass
class _Shown:
    """The case in hand.

    Attributes:
        labels: ``(*spatial)`` as drawn so far; None of a classification.
        at: The slice that is shown.
    """

    case: Case
    image: Image
    slices: Slices
    labels: NDArray[np.uint8] | None
    at: int


@dataclass
class ReadingPage:
    """What one reader sees of a queue.

    Args:
        desk: Where it is handed in.
        reader: Who reads.
        committee: Draws the first mask where there is none; None for an empty one.
    """

    desk: Desk
    reader: str
    committee: Committee | None = None
    _rest: list[str] = field(init=False)
    _shown: _Shown | None = field(init=False, default=None)
    _trouble: list[str] = field(init=False, default_factory=list)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.reader = check_reader(self.reader)
        read = {
            one.case
            for one in self.desk.listed.corrections.lines
            if one.reader == self.reader and one.queue == self.desk.queue.name
        }
        self._rest = [case for case in self.desk.cases if case not in read]

    def page(self) -> LivePage:
        """Return the page, to be served."""
        script = resources.files("wardround.client.page.review") / "brush.js"
        given = Document(script.read_bytes(), "text/javascript; charset=utf-8")
        return LivePage(
            title=f"Queue {self.desk.queue.name}",
            kicker=f"Wardround: cases for {printable(self.reader, 80)}",
            regions=(Region("progress", announced=True), Region("case")),
            draw=self._draw,
            still='<script src="files/brush.js" defer></script>',
            actions={"label": self.label, "mask": self.mask, "skip": self.skip},
            documents={"brush.js": lambda: given},
            interval_seconds=_INTERVAL_SECONDS,
        )

    def label(self, fields: Fields, who: str) -> Told:
        """Write down a class, or several, and go on to the next case."""
        del who
        with self._lock:
            shown = self._in_hand(fields)
            said = [value for name, value in fields.items() if name.startswith("label")]
            if not said and not self.desk.study.data.multi_label:
                msg = "no class was chosen: choose one."
                raise InputError(msg)
            self._hand_in(self.desk.label_opinion(shown.case.id, ";".join(said)))
            return Told("Written down.")

    def mask(self, fields: Fields, who: str) -> Told:
        """Take a slice that was drawn; show another one, or write the mask down."""
        del who
        with self._lock:
            shown = self._in_hand(fields)
            if shown.labels is None:
                msg = "the study asks for classes: choose one."
                raise InputError(msg)
            if fields.get("slice") != str(shown.at):
                raise InputError(_CHANGED)
            rows, columns = shown.slices.view(shown.labels, shown.at).shape[:2]
            drawn = unpack_labels(
                fields.get("labels", ""), (rows, columns), self.desk.study.class_count
            )
            shown.slices.put(shown.labels, shown.at, drawn)
            to = fields.get("to", "")
            if to.isdecimal() and int(to) < shown.slices.count:
                shown.at = int(to)
                return Told(f"Slice {shown.at + 1} of {shown.slices.count}.")
            self._hand_in(self._drawn(shown))
            return Told("Written down.")

    def skip(self, fields: Fields, who: str) -> Told:
        """Go on without a word; the case comes again when the page is started anew."""
        del who
        with self._lock:
            self._in_hand(fields)
            self._next()
            return Told("Skipped: it is shown again when the page is started anew.")

    def _in_hand(self, fields: Fields) -> _Shown:
        if self._shown is None or fields.get("case") != self._shown.case.id:
            raise InputError(_CHANGED)
        return self._shown

    def _drawn(self, shown: _Shown) -> Opinion:
        if shown.labels is None:
            msg = "a mask was drawn"
            raise TypeError(msg)
        source = shown.case.examination.held_images[0].path
        image = shown.image
        found = Segmented(
            self.desk.study.data.classes, shown.labels, image.affine, image.spacing, (), None
        )
        folder = self.desk.site.folder / REVIEW_FOLDER
        make_private_folder(folder)
        with TemporaryDirectory(dir=folder) as place:
            name = write_mask(Path(place), "mask", found, source)
            content = (Path(place) / name).read_bytes()
        return self.desk.mask_opinion(shown.case.id, content, name.removeprefix("mask"))

    def _hand_in(self, opinion: Opinion) -> None:
        self.desk.hand_in(self.reader, [opinion], "page")
        self._next()

    def _next(self) -> None:
        self._rest = self._rest[1:]
        self._shown = None

    def _show(self) -> _Shown | None:
        """Return the case in hand; one that cannot be read is passed over, and said."""
        while self._shown is None and self._rest:
            case = self.desk.cases[self._rest[0]]
            try:
                self._shown = self._opened(case)
            except DataError as error:
                self._trouble.append(f"{self.desk.listed.place(case)}: {error}")
                self._next()
        return self._shown

    def _opened(self, case: Case) -> _Shown:
        image = image_of(case, self.desk.study)
        slices = Slices(tuple(image.array.shape[1:]))
        if self.desk.study.task.column == "label":
            return _Shown(case, image, slices, None, slices.count // 2)
        last = self.desk.listed.corrections.last("mask")
        labels = labels_of(case, image, self.desk, last, self.committee).copy()
        held = labels.reshape(-1, slices.count).any(axis=0) if slices.count > 1 else np.ones(1)
        first = int(np.argmax(held)) if held.any() else slices.count // 2
        return _Shown(case, image, slices, labels, first)

    def _draw(self) -> Mapping[str, str]:
        with self._lock:
            shown = self._show()
            trouble = [printable(one, 300) for one in self._trouble]
            left = tag("p", f"{len(self._rest)} of {len(self.desk.cases)} cases are left.")
            lines = [left, *(tag("p", one, class_="lost") for one in trouble)]
            case = self._case(shown) if shown else tag("p", "All of them are read. Thank you.")
        return {"progress": joined(lines), "case": case}

    def _case(self, shown: _Shown) -> Html:
        view = shown.slices.view(grey_of(shown.image), shown.at)
        if self.desk.study.data.colour and len(shown.image.array) == 3:
            planes = [grey_of(replace(shown.image, array=one[None])) for one in shown.image.array]
            view = np.stack([shown.slices.view(one, shown.at) for one in planes], axis=-1)
        name = f"Case {shown.case.id}"
        skip = form("skip", "Skip", {"case": shown.case.id})
        heading = tag("h2", name)
        if shown.labels is None:
            picture = void("img", src=picture_address(view), alt=name, class_="shown")
            return joined((heading, picture, self._buttons(shown), skip))
        return joined((heading, self._brush(shown, view, name), skip))

    def _buttons(self, shown: _Shown) -> Html:
        classes = self.desk.study.data.classes
        if not self.desk.study.data.multi_label:
            hint = tag("p", "Keys 1 to 9 press the buttons.", class_="small")
            buttons = (
                form("label", printable(one, 80), {"case": shown.case.id, "label": one})
                for one in classes
            )
            return joined((tag("div", joined(buttons), class_="choices"), hint))
        boxes = (
            tag(
                "label",
                joined(
                    (
                        void("input", type="checkbox", name=f"label-{at}", value=one),
                        tag("span", printable(one, 80)),
                    )
                ),
            )
            for at, one in enumerate(classes)
        )
        hidden = void("input", type="hidden", name="case", value=shown.case.id)
        inside = joined((hidden, *boxes, tag("button", "Write down")))
        return tag("form", inside, data_action="label")

    def _brush(self, shown: _Shown, view: NDArray[np.uint8], name: str) -> Html:
        if shown.labels is None:
            msg = "a brush needs a mask"
            raise TypeError(msg)
        seen = shown.slices.view(shown.labels, shown.at)
        rows, columns = seen.shape[:2]
        count = shown.slices.count
        canvas = tag(
            "canvas",
            "",
            width=str(columns),
            height=str(rows),
            tabindex="0",
            role="application",
            aria_label=f"{name}, slice {shown.at + 1} of {count}. {_BRUSH_HELP}",
        )
        picture = void("img", src=picture_address(view), hidden="hidden")
        fields = [
            void("input", type="hidden", name="case", value=shown.case.id),
            void("input", type="hidden", name="slice", value=str(shown.at)),
            void("input", type="hidden", name="labels", value=pack_labels(seen)),
        ]
        moves = [(shown.at - 1, "Previous slice"), (shown.at + 1, "Next slice")]
        buttons = [
            tag("button", label, name="to", value=str(to)) for to, label in moves if 0 <= to < count
        ]
        done = tag("button", "Write down", name="to", value="done")
        inside = joined((*fields, *buttons, done))
        return tag(
            "div",
            joined(
                (
                    canvas,
                    picture,
                    tag("p", "", class_="small", role="status"),
                    tag("form", inside, data_action="mask"),
                    tag("p", _BRUSH_HELP, class_="small"),
                )
            ),
            class_="drawing",
            data_brush=json.dumps([printable(one, 40) for one in self.desk.study.data.classes]),
        )


def serve_reading_page(page: ReadingPage, port: int, tell: Callable[[str], None]) -> None:
    """Serve a reader's page until Ctrl-C.

    Args:
        page: The page.
        port: Of this machine; 0 takes a free one.
        tell: Is given the link.

    Raises:
        InputError: The port is taken.
        RunError: The page cannot be served.
    """
    with live_page(page.page(), port) as served:
        tell(served.link)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
