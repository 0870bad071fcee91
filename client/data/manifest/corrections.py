"""What readers said of a site's examinations, laid over its manifest: the files stay as they are.

The table ``review/corrections.jsonl`` is appended to and never changed: a hash chain with a line
for each thing that a reader said. The last one on an examination counts. An examination is known
by a keyed hash of its patient and its images, so that the order of rows means nothing and nobody
without the site's key learns whose it is. Rows of ``unlabelled.csv`` join the manifest once a
reader has labelled them; who is trained on and who is tested on is told by the patient, as for
every other row, and no correction moves anybody.
"""

import hmac
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wardround.client.data.manifest.label_words import LabelWords
from wardround.client.data.manifest.table import Line, Table, read_table
from wardround.client.site.folder import Site
from wardround.client.tasks.task import UnusableLabelError
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError
from wardround.common.files.json_lines import (
    NO_HASH,
    BrokenLineError,
    ChainHead,
    from_line,
    split_lines,
)
from wardround.common.study.study import Study

KEY_FILE, MASK_FOLDER = "key", "masks"
KEY_BYTES, CASE_DIGITS = 32, 16
_NOTHING = ChainHead(0, NO_HASH)
_TARGETS = ("label", "mask", "boxes", "time", "event", "lesion_mask")
_NO_IMAGE = (*_TARGETS, "split", "site", "scanner", "source row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What one reader said of one examination.

    Attributes:
        time: ISO 8601, UTC.
        reader: Who; a name or initials of the hospital's own staff.
        case: The examination, as :func:`case_ids` names it.
        column: ``label`` or ``mask``.
        old: What counted before: a label, or ``sha256:`` of a mask's file; "" where nothing did.
        new: What counts now: a label, or the name of a file in ``review/masks``.
        classes: Of the study that the reader was shown, in order.
        queue: From which queue the case was read; "" for none.
        source: ``command``, ``file``, ``page`` or ``pacs``.
        origin: SHA-256 over the identifier of a DICOM object; "" for none.
        dice: Of a mask: the mean Dice coefficient with the mask that the list itself names; None
            where it names none, and of a label.
    """

    time: str
    reader: str
    case: str
    column: str
    old: str
    new: str
    classes: tuple[str, ...]
    queue: str = ""
    source: str = "command"
    origin: str = ""
    dice: float | None = None

    def content(self) -> dict[str, Any]:
        """Return it as it stands in the table."""
        return {**asdict(self), "classes": list(self.classes)}


@dataclass(frozen=True, slots=True)
class Corrections:
    """The table as it is now.

    Attributes:
        lines: The oldest first.
        head: Of the chain.
        length: Of the lines that have their end, in bytes; what follows is torn.
    """

    lines: tuple[Correction, ...] = ()
    head: ChainHead = _NOTHING
    length: int = 0

    def last(self, column: str) -> dict[str, Correction]:
        """Return what counts of each case that anybody has said something of."""
        return {one.case: one for one in self.lines if one.column == column}


def read_corrections(path: Path) -> Corrections:
    """Return a table of corrections; an absent one is empty, a torn last line never counted.

    Raises:
        DataError: It cannot be read, or a line is not as it was written.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Corrections()
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): use the account that the site runs under."
        raise DataError(msg) from None
    return parse_corrections(content, path)


def parse_corrections(content: bytes, path: Path) -> Corrections:
    """Return what the bytes of a table say.

    Raises:
        DataError: A line is not as it was written; says which.
    """
    lines, torn = split_lines(content)
    head, found = _NOTHING, list[Correction]()
    for number, line in enumerate(lines, start=1):
        try:
            said, stated = from_line(line, number, head.hash)
            del said["number"], said["previous"]
            found.append(Correction(**{**said, "classes": tuple(said["classes"])}))
        except (BrokenLineError, TypeError, KeyError) as error:
            fact = str(error) if isinstance(error, BrokenLineError) else "is not a correction"
            msg = (
                f"line {number} of {path} {fact}: put the table back from a backup of the site "
                "folder. It says which labels are trained on; the site does not train without."
            )
            raise DataError(msg) from None
        head = ChainHead(number, stated)
    return Corrections(tuple(found), head, len(content) - len(torn))


def read_case_key(site: Site) -> bytes | None:
    """Return the key by which cases are named; None where nobody has made it yet.

    Raises:
        DataError: It is damaged.
    """
    path = site.corrections_path.with_name(KEY_FILE)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        msg = f"{path} is damaged: put it back from a backup of the site folder."
        raise DataError(msg)
    return key


def case_ids(table: Table, key: bytes) -> list[str]:
    """Return the name of the examination in each line of a table.

    It is a keyed hash of the patient and of the cells that name images, whatever else the row
    says; of a table without images of all cells but those of targets and parts.
    """
    header = [name.casefold() for name in table.header]
    images = [at for at, name in enumerate(header) if name.partition(".")[0] == "image"]
    patient = [at for at, name in enumerate(header) if name == "patient"]
    others = images or [
        at for at, name in enumerate(header) if name not in (*_NO_IMAGE, "patient") and name
    ]
    ids = []
    for line in table.lines:
        said = sorted((header[at], tidy(line.cells[at])) for at in (*patient, *others))
        held = [pair for pair in said if pair[1]]  # a column that is empty here may be absent there
        digest = hmac.digest(key, json.dumps(held).encode(), "sha256")
        ids.append(digest.hex()[:CASE_DIGITS])
    return ids


def read_unlabelled(site: Site, table: Table) -> Table | None:
    """Return the site's list of unlabelled examinations; None where it has none.

    Its rows come after those of the manifest: row ``n`` of it is row ``last + n``.

    Args:
        table: The manifest.

    Raises:
        DataError: It cannot be read.
    """
    if not site.unlabelled_path.exists():
        return None
    pool = read_table(site.unlabelled_path, "the list of unlabelled examinations")
    if pool.place("patient") is None:
        msg = (
            f"the list {site.unlabelled_path} lacks the column patient: write the columns of the "
            "manifest into its first row, but for the label."
        )
        raise DataError(msg)
    last = max((line.row for line in table.lines), default=1)
    lines = tuple(Line(last + line.row, line.cells) for line in pool.lines)
    return replace(pool, lines=lines)


def joined(table: Table, pool: Table, labels: Mapping[int, str], column: str) -> Table:
    """Return a manifest with rows of the unlabelled list below its own.

    A patient whom the manifest puts into a part stays there. Others are trained on where the
    manifest names parts and neither list names theirs.

    Args:
        labels: What the target's cell is to say, by the place of a line in the pool.
        column: Of the target.
    """
    places = [pool.place(name) if name else None for name in table.header]
    split, patient = table.place("split"), table.place("patient")
    named = _named_parts(table, patient, split)
    target = table.place(column)
    added = []
    for at, label in labels.items():
        line = pool.lines[at]
        cells = ["" if place is None else line.cells[place] for place in places]
        if target is not None:
            cells[target] = label
        if split is not None and patient is not None and named:
            cells[split] = named.get(tidy(cells[patient])) or cells[split] or "train"
        added.append(Line(line.row, tuple(cells)))
    return replace(table, lines=(*table.lines, *added))


def _named_parts(table: Table, patient: int | None, split: int | None) -> dict[str, str]:
    if patient is None or split is None:
        return {}
    return {
        tidy(line.cells[patient]): line.cells[split] for line in table.lines if line.cells[split]
    }


def corrected(
    table: Table,
    site: Site,
    study: Study,
    words: LabelWords,
    only: Collection[str] | None = None,
) -> tuple[Table, tuple[str, ...]]:
    """Return a manifest with what readers said in the place of its labels or masks, and notes.

    What was said for other classes than the study's is passed over, and counted.

    Args:
        table: The manifest.
        site: Whose.
        study: Whose classes count.
        words: The site's for the classes.
        only: The cases of which corrections count; None for all.

    Raises:
        DataError: The table of corrections is damaged, or the key of its cases is gone.
    """
    column, path = study.task.column, site.corrections_path
    said = read_corrections(path).last(column)
    if not said:
        return table, ()
    key = read_case_key(site)
    if key is None:
        msg = f"{path} is there and the file key beside it is gone: put it back from a backup."
        raise DataError(msg)
    usable = {
        case: cell
        for case, one in said.items()
        if (only is None or case in only) and (cell := _cell(one, site, study, words))
    }
    target, own = table.place(column), case_ids(table, key)
    lines = list(table.lines)
    for at, case in enumerate(own):
        if case in usable and target is not None:
            cells = list(lines[at].cells)
            cells[target] = usable[case]
            lines[at] = Line(lines[at].row, tuple(cells))
    result, joining = replace(table, lines=tuple(lines)), 0
    pool = read_unlabelled(site, table)
    if pool is not None:
        known, ids = set(own), case_ids(pool, key)
        labels = {
            at: usable[case] for at, case in enumerate(ids) if case in usable and case not in known
        }
        result, joining = joined(result, pool, labels, column), len(labels)
    matched = sum(case in usable for case in own)
    return result, tuple(_notes(len(said), len(usable), matched, joining))


def _cell(one: Correction, site: Site, study: Study, words: LabelWords) -> str:
    """Return what stands in the target's cell for a correction; "" where the study knows it not."""
    if one.column == "mask":
        fits = one.classes == study.data.classes or one.new.endswith(".dcm")
        return str(site.corrections_path.with_name(MASK_FOLDER) / one.new) if fits else ""
    try:
        words.read(one.new, study)
    except UnusableLabelError:
        return ""
    return one.new


def _notes(said: int, usable: int, matched: int, joining: int) -> Iterable[str]:
    yield (
        f"readers' corrections count for {matched} rows of the manifest, and {joining} rows of "
        "unlabelled.csv have joined it"
    )
    if said > usable:
        yield (
            f"{said - usable} corrections were made for other classes than the study's, and are "
            "passed over"
        )
    if usable > matched + joining:
        yield (
            f"{usable - matched - joining} corrections belong to no row any more: their patient or "
            "image was renamed or taken out"
        )
