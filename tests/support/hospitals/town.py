"""Sites of a server that come and go, each with what it says when it is asked."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Error, Message, RecordDict

import wardround
from wardround.common.flower.site_grid import SiteGrid, begin_local_run, stamp
from wardround.common.messages.replies import Refusal, SiteInfo, pack_refusal, pack_site_info
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

Reply = Callable[[Study], RecordDict | None]


def says(**changes: object) -> Reply:
    def reply(study: Study) -> RecordDict:
        facts = {
            "site": "north",
            "wardround": wardround.__version__,
            "digest": study.digest,
            "examinations": 40,
        }
        return pack_site_info(SiteInfo(**{**facts, **changes}))  # type: ignore[arg-type]

    return reply


def refuses(code: str) -> Reply:
    return lambda _: pack_refusal(Refusal("", code))


@dataclass
class Town:
    """Sites that answer, each with what it says to the first, the second ... question."""

    study: Study
    sites: dict[str, list[Reply]]
    connected: set[str]
    asked: dict[str, int] = field(default_factory=dict)

    def names(self) -> dict[int, str]:
        return {hash(site) % 10_000: site for site in sorted(self.connected)}


class TownGrid(SiteGrid):
    """A Grid whose sites are those of a town."""

    def __init__(self, town: Town) -> None:
        super().__init__(begin_local_run(1))
        self.town, self.left = town, dict[str, Message]()

    def get_node_ids(self) -> Iterable[int]:
        return list(self.town.names())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            number = f"{len(self.left)}"
            stamp(message, number)
            self.left[number] = message
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = []
        for number in message_ids:
            asked = self.left[number]
            site = self.town.names().get(asked.metadata.dst_node_id)
            if site is None:
                found.append(Message(Error(2, "away"), reply_to=asked))
                continue
            count = self.town.asked[site] = self.town.asked.get(site, 0) + 1
            replies = self.town.sites[site]
            content = replies[min(count, len(replies)) - 1](self.town.study)
            if content is not None:
                found.append(Message(content, reply_to=asked))
        return found


def make_study(minimum_sites: int = 2) -> Study:
    return parse_study(
        {
            "study": {"name": "waiting", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["no", "yes"],
                "covariates": [{"name": "a"}],
            },
            "model": {"network": "mlp", "features": [8]},
            "federation": {"minimum_sites": minimum_sites},
        }
    )


SOUTH = says(site="south")
