"""Learning who the sites are, before the first round."""

from collections.abc import Iterator, Sequence

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

import wardround
from wardround.common.errors import DataError, RunError
from wardround.common.messages.instructions import DESCRIBE, pack_weights
from wardround.common.messages.refusals import LACKS_WEIGHTS, in_words
from wardround.common.messages.replies import (
    SiteInfo,
    understand_each_other,
    unpack_site_info,
)
from wardround.common.models.pretrained import stored_weights
from wardround.common.study.study import Study
from wardround.server.sites.exchange import Exchange, Node, Reply
from wardround.server.sites.intake import taking_in

OTHER_NETWORK = (
    "it does not hold the frozen network that most others do: install the same torch and monai"
)
_SAME_BASE = 1e-3  # rounding differs by 1e-5, another draw of a single layer by 1


def describe_sites(grid: Grid, study: Study) -> tuple[tuple[Node, ...], tuple[SiteInfo, ...]]:
    """Ask every connected site to load its data and to say who it is.

    Returns:
        The nodes in the order of their names, and what each said.

    Raises:
        DataError: A site cannot read its data.
        RunError: A site runs another study or version, two have one name, or adapters would be
            trained on different bases.
    """
    unnamed = [Node(node_id, f"node {node_id}", 0) for node_id in grid.get_node_ids()]
    nodes, site_infos = [], []
    for reply in _answers(grid, study, unnamed):
        if reply.content is None:
            refusal = reply.refusal
            msg = (
                f"{refusal.site} cannot take part: {refusal.reason or in_words(refusal.code)}"
                if refusal
                else ""
            )
            raise DataError(msg)
        with taking_in(reply.node.site):
            site_info = unpack_site_info(reply.content)
        check_site_info(site_info, study)
        nodes.append(Node(reply.node.node_id, site_info.site, site_info.examinations))
        site_infos.append(site_info)
    names = [node.site for node in nodes]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = f"two sites have the same name ({', '.join(twice)}): rename one in its site.toml."
        raise RunError(msg)
    check_bases(site_infos)
    nodes.sort(key=lambda node: node.site)
    site_infos.sort(key=lambda site_info: site_info.site)
    return tuple(nodes), tuple(site_infos)


def _answers(grid: Grid, study: Study, nodes: Sequence[Node]) -> Iterator[Reply]:
    """Yield each site's answer; one that lacks the study's weights is sent them and asked again."""
    lacking = []
    for reply in Exchange(grid).ask(nodes, DESCRIBE, lambda: question(study), "site-info"):
        if reply.refusal is not None and reply.refusal.code == LACKS_WEIGHTS:
            lacking.append(reply.node)
        else:
            yield reply
    if lacking:
        content = question(study, with_weights=True)
        yield from Exchange(grid).ask(lacking, DESCRIBE, lambda: content, "site-info")


def question(study: Study, with_weights: bool = False) -> RecordDict:
    """Return the content of the message that asks a site who it is.

    Args:
        with_weights: Whether the weights that the study starts from go along.

    Raises:
        ModelError: They are not on this machine.
    """
    asked = RecordDict({"instruction": ConfigRecord({"digest": study.digest})})
    if not with_weights or study.model.weights_sha256 is None:
        return asked
    return RecordDict({**asked, **pack_weights(stored_weights(study.model.weights_sha256))})


def check_site_info(site_info: SiteInfo, study: Study) -> None:
    """Check that a site works on this study, with this version, and with adapters only if it asks.

    Raises:
        RunError: It does not.
    """
    if site_info.digest != study.digest:
        msg = (
            f"{site_info.site} works on study {site_info.digest[:12]}, not on "
            f"{study.digest[:12]}: give both the same study file."
        )
        raise RunError(msg)
    if not understand_each_other(wardround.__version__, site_info.wardround):
        msg = (
            f"{site_info.site} runs wardround {site_info.wardround}, the server "
            f"{wardround.__version__}: only the last number of the two may differ."
        )
        raise RunError(msg)
    if site_info.base and not study.model.adapted:
        msg = (
            f"{site_info.site} speaks of a frozen network, and the study freezes none: "
            "install the same version of wardround."
        )
        raise RunError(msg)


def outvoted(site_infos: Sequence[SiteInfo]) -> tuple[str, ...]:
    """Return the sites whose frozen network is not the one that more than half of them hold.

    Nobody is where no half agrees: then nothing says who is right.
    """
    for one in site_infos:
        others = [x.site for x in site_infos if not abs(x.base - one.base) <= _SAME_BASE]
        if 2 * len(others) < len(site_infos):
            return tuple(others)
    return ()


def check_bases(site_infos: Sequence[SiteInfo]) -> None:
    """Check that all sites would add their adapters to the same frozen network.

    Raises:
        RunError: Two sites made different ones of the same seed.
    """
    for site_info in site_infos[1:]:
        first = site_infos[0]
        if not abs(site_info.base - first.base) <= _SAME_BASE:
            msg = (
                f"{first.site} and {site_info.site} do not hold the same frozen network, so "
                "their adapters cannot be combined: install the same torch and monai."
            )
            raise RunError(msg)
