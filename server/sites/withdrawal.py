"""What taking a site out of a run would repeat: from which commit, how many rounds, at what cost.

The exact way: training goes on from the last commit before the site's first number came in, as if
it had never been there. FedEraser (Liu et al., IWQoS 2021) is faster and approximate, and needs
every site's updates, which a server does not keep.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from wardround.common.errors import InputError, RunError, nearest
from wardround.common.security.withdrawal.request import Without
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.plans.what_leaves import kept_model
from wardround.common.study.sections.heading import Repeat
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, heard_in, read_records
from wardround.server.checkpoints.store import CheckpointStore, Progress
from wardround.server.strategies.composed import needs_same_sites

_CONDITIONS = (
    "on one kind of machine, with the data of the other sites unchanged, and if each of them "
    "answers the rounds that it would have answered"
)


@dataclass(frozen=True, slots=True)
class WithdrawalPlan:
    """What would be repeated, said before anything is.

    Attributes:
        site: Which site leaves, or has patients who do.
        without: What leaves: the site, or patients of it.
        first_round: The first round that has a number of the site in it.
        after_round: The last round that stays; 0 where training begins anew.
        rounds: Of the study.
        done: Rounds that the run has committed.
        kept: The rounds whose commits this server has of the run.
        seconds: What the repeat takes, as long as the run's rounds since took; None where none was.
        is_exact: Whether its model is to the bit that of a run without the site.
        why: Under which conditions it is exact, or why not; and why not from a later commit.
        first_rounds: Of the other sites that came later, when; they come so again.
        others: Who takes part in the repeat, as far as the history tells.
    """

    site: str
    without: Without
    first_round: int
    after_round: int
    rounds: int
    done: int
    kept: tuple[int, ...]
    seconds: float | None
    is_exact: bool
    why: tuple[str, ...]
    first_rounds: Mapping[str, int]
    others: tuple[str, ...]

    @property
    def repeated(self) -> int:
        """How many rounds are trained again."""
        return self.rounds - self.after_round

    def words(self) -> tuple[str, ...]:
        """Return it in sentences."""
        what = "it" if self.without == "site" else "these patients of it"
        leaves = "it leaves" if self.without == "site" else "patients of it leave"
        kept = ", ".join(map(str, self.kept)) or "none"
        begin = (
            f"from the commit of round {self.after_round}" if self.after_round else "from the start"
        )
        cost = "" if self.seconds is None else f", about {self.seconds:.3g} s"
        equal = "bit-identical to a run" if self.is_exact else "retrained, not bit-equal to a run"
        return (
            f"{self.site} has numbers in the run since round {self.first_round}; {leaves}.",
            f"Of {self.done} rounds done this server keeps {len(self.kept)} commits: {kept}.",
            f"Training goes on {begin}: {self.repeated} rounds are trained (of {self.rounds}), "
            f"{max(0, self.done - self.after_round)} of them again{cost}.",
            f"The model will be {equal} that never had {what}: {'; '.join(self.why)}.",
        )


def plan_withdrawal(
    store: CheckpointStore, study: Study, site: str, without: Without = "site"
) -> WithdrawalPlan:
    """Return what taking a site, or patients of it, out of a run would repeat.

    A patient is taken to be in every round of its site: which ones a server does not know.

    Raises:
        InputError: The run has no number of the site, or is no training, or too few sites are left.
        RunError: The run has no commit.
    """
    latest = store.latest()
    if latest is None:
        msg = f"{store.folder} holds no whole commit: there is nothing to take a site out of."
        raise RunError(msg)
    progress = latest.progress
    records = [one for one in read_records(store.history_path) if one.round <= progress.round]
    first_rounds = _first_rounds(records)
    names = {site.site for record in records for site in record.sites}
    if site not in first_rounds:
        close = nearest(site, sorted(names))
        hint = f" Did you mean {close!r}?" if close else ""
        msg = (
            f"no round of the run has a number of {site!r}: there is nothing to repeat.{hint} "
            f"Sites in it: {', '.join(sorted(names)) or 'none'}."
        )
        raise InputError(msg)
    others = tuple(sorted(names - {site} if without == "site" else names))
    _require_enough(study, others, site)
    first = first_rounds[site]
    after, why_not_later = _begin(store, study, first)
    is_exact, why = _exactness(study)
    why = (*why, *_begun_with(study))
    own = {site} if without == "site" else set[str]()
    return WithdrawalPlan(
        site=site,
        without=without,
        first_round=first,
        after_round=after,
        rounds=study.federation.rounds,
        done=progress.round,
        kept=tuple(number for number in store.rounds() if number <= progress.round),
        seconds=_cost(records, after, study.federation.rounds),
        is_exact=is_exact,
        why=(*why, *why_not_later),
        first_rounds={s: r for s, r in first_rounds.items() if r > 1 and s not in own},
        others=others,
    )


def study_without(study: Study, plan: WithdrawalPlan, request: str) -> Study:
    """Return the study that repeats the rounds: the same one, with its parent's digest in it.

    Args:
        request: SHA-256 of the signed request.
    """
    repeats = Repeat(
        parent=study.digest,
        request=request,
        after_round=plan.after_round,
        without=plan.without,
    )
    heading = study.study.model_copy(update={"repeats": repeats})
    return study.model_copy(update={"study": heading})


def begin_store(
    source: CheckpointStore, target: CheckpointStore, plan: WithdrawalPlan, digest: str, run: str
) -> None:
    """Give the repeat its first commit, its history and what it may need later; none for round 0.

    The other run's folder is read alone: its commits, its history and its record stay as they are.

    Args:
        digest: Of the study that repeats.
        run: What tells the repeat from any other run.

    Raises:
        RunError: A commit is absent or damaged.
    """
    if plan.after_round == 0:
        return
    begun = source.load(plan.after_round).progress
    for number in sorted({*source.pinned(), begun.best_round, plan.after_round}):
        if not 0 <= number <= plan.after_round or number not in source.rounds():
            continue
        progress = source.load(number).progress
        source.copy_to(target, number, _as_of(progress, digest, run))
        if number in source.pinned():
            target.pin(_as_of(progress, digest, run))
    history = source.history_path.read_bytes()[: begun.history_bytes]
    target.history_path.write_bytes(history)


def _as_of(progress: Progress, digest: str, run: str) -> Progress:
    """Return a commit's progress as of another run, in which no site was counted yet.

    A site knows nothing of the new run: it is told that no round of its was counted, and its memory
    begins empty; studies in which that matters begin anew.
    """
    return replace(progress, digest=digest, run=run, counted={})


def _first_rounds(records: list[RoundRecord]) -> dict[str, int]:
    """Return for each site the first round that has a number of it."""
    trained = {one.site for record in records for one in record.sites}
    found: dict[str, int] = {}
    for record in records:
        for name in heard_in(record) & trained:  # there are measurements of all sites together
            found.setdefault(name, record.round)
    return found


def _require_enough(study: Study, others: tuple[str, ...], site: str) -> None:
    least = study.federation.minimum_sites
    if len(others) < least:
        msg = (
            f"without {site} the run has {len(others)} sites, and the study needs {least}: its "
            "model can be revoked, but not trained again."
        )
        raise InputError(msg)


def _begin(store: CheckpointStore, study: Study, first: int) -> tuple[int, tuple[str, ...]]:
    """Return the commit to go on from, and why it is not the last one before a round."""
    if plan_of(study).keeps_state or study.federation.compression != "none":
        why = (
            "each site keeps a part of the model or what compression left out from round to round, "
            "and no earlier state of it is kept: training begins anew"
        )
        return 0, (why,) * (first > 1)
    if needs_same_sites(study):
        why = "the strategy reckons with the number of all sites: training begins anew"
        return 0, (why,) * (first > 1)
    for number in sorted((n for n in store.rounds() if 0 < n < first), reverse=True):
        if _is_whole(store, study, number):
            late = number < first - 1
            said = f"no later commit without it is whole: round {number} is repeated from"
            return number, (said,) * late
    return 0, ("no commit without it is kept: training begins anew",) * (first > 1)


def _is_whole(store: CheckpointStore, study: Study, number: int) -> bool:
    """Return whether a commit can be gone on from: it, and the best one that it speaks of."""
    try:
        best = store.load(number).progress.best_round
        if kept_model(study) == "best" and best >= 0:
            store.load(best)
    except RunError:
        return False
    return True


def _exactness(study: Study) -> tuple[bool, tuple[str, ...]]:
    if study.privacy.mode != "none":
        whose = "patients" if study.privacy.mode == "patient" else "hospitals"
        charged = (
            "; the repeated rounds are charged to each site's ledger again"
            if study.privacy.mode == "patient"
            else ""
        )
        why = f"the noise that protects {whose} is drawn anew{charged}"
        return False, (why,)
    if study.federation.buffer_size is not None:
        return False, ("asynchronous rounds depend on how fast each site is",)
    return True, (_CONDITIONS,)


def _begun_with(study: Study) -> tuple[str, ...]:
    """Say what a repeat cannot take out: what the model that the run began with had learnt."""
    if study.continual is not None and study.continual.parent is not None:
        whose = f"of study {study.continual.parent[:16]}"
    elif study.model.weights_sha256 is not None:
        whose = f"of the weights {study.model.weights_sha256[:16]}"
    else:
        return ()
    return (f"it begins, as the run did, with the model {whose}, and what that one learnt stays",)


def require_no_parent_of(site: str, parents: Iterable[tuple[str, CheckpointStore]]) -> None:
    """Check that no run that a run goes on from has numbers of a site.

    Args:
        parents: Name and commits of each, as far as they are known here.

    Raises:
        InputError: One has: the site would still be in the model.
    """
    for name, store in parents:
        if site in _first_rounds(list(read_records(store.history_path))):
            msg = (
                f"the run goes on from the model of {name}, in which {site} has numbers too: take "
                f"it out of {name} first, and go on from that repeat with 'wardround study "
                "continue'."
            )
            raise InputError(msg)


def _cost(records: list[RoundRecord], after: int, rounds: int) -> float | None:
    since = [record.seconds for record in records if record.round > after]
    return None if not since else sum(since) / len(since) * (rounds - after)
