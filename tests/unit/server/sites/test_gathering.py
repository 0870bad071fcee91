"""A study waits for its sites: for those that are away, and for those that have to approve it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

import wardround
from wardround.common.errors import RunError
from wardround.common.flower.local import Run, claim_identity, empty_run, stamp
from wardround.common.messages.replies import Refusal, SiteInfo, pack_refusal, pack_site_info
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.sites import readiness as poll
from wardround.server.sites import waiting as gathering
from wardround.server.sites.readiness import ReadinessPoll
from wardround.server.sites.waiting import SiteWait, Terms

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


class TownGrid(Grid):
    def __init__(self, town: Town) -> None:
        self.town, self.left = town, dict[str, Message]()
        claim_identity(1)

    def set_run(self, run: Run) -> None: ...

    @property
    def run(self) -> Run:
        return empty_run(1)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

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

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return []


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(poll, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(poll, "_LONGEST_PAUSE_SECONDS", 0.02)


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


def gather(
    town: Town,
    terms: Terms | None = None,
    members: tuple[str, ...] = (),
    hears: Callable[[str], None] = lambda _: None,
) -> list[str]:
    poll = ReadinessPoll(TownGrid(town), town.names, town.study)
    found = SiteWait(poll, lambda: members, town.study, terms or Terms(), hears).gather()
    return [f"{node.site}:{node.examinations}" for node in found[0]]


def two(north: list[Reply], south: list[Reply], minimum_sites: int = 2) -> Town:
    study = make_study(minimum_sites)
    return Town(study, {"north": north, "south": south}, {"north", "south"})


SOUTH = says(site="south")


def test_sites_that_are_there_and_ready_are_taken_in_the_order_of_their_names() -> None:
    assert gather(two([says()], [says(site="south", examinations=7)])) == ["north:40", "south:7"]


def test_a_site_that_has_not_approved_the_study_is_asked_until_it_has() -> None:
    heard: list[str] = []
    town = two([refuses("policy"), refuses("policy"), refuses("policy"), says()], [SOUTH])
    assert gather(town, hears=heard.append) == ["north:40", "south:40"]
    assert town.asked["north"] == 4
    assert "waiting for sites: 1 of 2 are ready (north has not approved the study)" in heard


def test_a_site_that_never_approves_ends_the_waiting_with_its_name() -> None:
    town = two([refuses("policy")], [SOUTH])
    with pytest.raises(RunError, match=r"needs 2 sites and 1 .*north has not approved the study"):
        gather(town, Terms(approval_timeout_seconds=0.2))


def test_with_a_quorum_a_site_that_never_approves_is_left_out() -> None:
    town = two([refuses("policy")], [SOUTH], minimum_sites=1)
    assert gather(town, Terms(approval_timeout_seconds=0.2)) == ["south:40"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refuses("budget"), "north has no privacy budget left"),
        (refuses("data"), "north cannot use its data"),
        (refuses("guard"), r"north refuses \(guard\)"),
        (says(wardround="0.0.1"), r"north runs wardround 0\.0\.1, the server"),
        (says(site="someone"), "it calls itself 'someone'"),
        (lambda _: RecordDict(), "site-info cannot be read"),
    ],
)
def test_a_site_that_cannot_take_part_is_not_waited_for(reply: Reply, reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        gather(two([reply], [SOUTH]))
    assert gather(two([reply], [SOUTH], minimum_sites=1)) == ["south:40"]


def test_a_member_that_is_away_is_waited_for_a_moment_beyond_the_quorum() -> None:
    town = two([says()], [SOUTH], minimum_sites=1)
    town.connected = {"south"}
    heard: list[str] = []

    def note(words: str) -> None:
        heard.append(words)
        town.connected.add("north")

    assert gather(town, members=("north", "south"), hears=note) == ["north:40", "south:40"]
    assert heard[0] == "waiting for sites: 1 of 2 are ready (north is not connected)"
    town.connected = {"south"}
    terms = Terms(gathering_seconds=0.1)
    assert gather(town, terms, members=("north", "south")) == ["south:40"]


def test_a_study_for_named_sites_takes_no_other() -> None:
    town = two([says()], [SOUTH], minimum_sites=1)
    assert gather(town, Terms(wanted=("north",))) == ["north:40"]
    assert "south" not in town.asked
