"""Learning who the sites are, before the first round."""

from collections.abc import Sequence

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

import wardround
from wardround.common.errors import DataError, RunError
from wardround.common.messages.instructions import INTRODUCE
from wardround.common.messages.refusals import in_words
from wardround.common.messages.replies import Introduction, unpack_introduction
from wardround.common.study.study import Study
from wardround.server.sites.exchange import Mailbox, Node

_SAME_BASE = 1e-3  # rounding differs by 1e-5, another draw of a single layer by 1


def introduce_sites(grid: Grid, study: Study) -> tuple[tuple[Node, ...], tuple[Introduction, ...]]:
    """Ask every connected site to load its data and to say who it is.

    Returns:
        The nodes in the order of their names, and what each said.

    Raises:
        DataError: A site cannot read its data.
        RunError: A site runs another study or version, two have one name, or adapters would be
            trained on different bases.
    """
    unnamed = [Node(node_id, f"node {node_id}", 0) for node_id in grid.get_node_ids()]
    nodes, introductions = [], []
    for answer in Mailbox(grid).ask(unnamed, INTRODUCE, lambda: question(study), "introduction"):
        if answer.content is None:
            refusal = answer.refusal
            msg = (
                f"{refusal.site} cannot take part: {refusal.reason or in_words(refusal.code)}"
                if refusal
                else ""
            )
            raise DataError(msg)
        introduction = unpack_introduction(answer.content)
        check_introduction(introduction, study)
        nodes.append(Node(answer.node.node_id, introduction.site, introduction.examinations))
        introductions.append(introduction)
    names = [node.site for node in nodes]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = f"two sites have the same name ({', '.join(twice)}): rename one in its site.toml."
        raise RunError(msg)
    check_bases(introductions)
    nodes.sort(key=lambda node: node.site)
    introductions.sort(key=lambda introduction: introduction.site)
    return tuple(nodes), tuple(introductions)


def question(study: Study) -> RecordDict:
    """Return the content of the message that asks a site who it is."""
    return RecordDict({"order": ConfigRecord({"digest": study.digest})})


def check_introduction(introduction: Introduction, study: Study) -> None:
    """Check that a site works on this study, with this version.

    Raises:
        RunError: It does not.
    """
    if introduction.digest != study.digest:
        msg = (
            f"{introduction.site} works on study {introduction.digest[:12]}, not on "
            f"{study.digest[:12]}: give both the same study file."
        )
        raise RunError(msg)
    if introduction.wardround != wardround.__version__:
        msg = (
            f"{introduction.site} runs wardround {introduction.wardround}, the server "
            f"{wardround.__version__}: install the same version."
        )
        raise RunError(msg)


def check_bases(introductions: Sequence[Introduction]) -> None:
    """Check that all sites would add their adapters to the same frozen network.

    Raises:
        RunError: Two sites made different ones of the same seed.
    """
    for introduction in introductions[1:]:
        first = introductions[0]
        if not abs(introduction.base - first.base) <= _SAME_BASE:
            msg = (
                f"{first.site} and {introduction.site} do not hold the same frozen network, so "
                "their adapters cannot be combined: install the same torch and monai."
            )
            raise RunError(msg)
