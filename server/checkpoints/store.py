"""The last good model and all that is needed to go on, committed atomically, verified on load.

A commit is a folder ``round-00007`` with the model, the state, and ``commit.json``, which holds the
SHA-256 of each file. It is written beside its place, flushed to disk, and moved in with one rename:
a crash leaves the commit before it or the commit after it, never a mixture.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from wardround.common.errors import InputError, RunError
from wardround.common.files.atomic import BY_UMASK, flush, put_in_place, replace_file, write_new
from wardround.common.files.json_lines import ChainHead
from wardround.common.messages.instructions import NO_LEDGER, SiteProgress
from wardround.common.parameters.model_file import StoredModel, load_model, save_model
from wardround.common.parameters.schema import Parameters, under

_MODEL, _STRATEGY = "model.safetensors", "strategy.safetensors"
_STATE, _SEAL = "state.json", "commit.json"
_PINNED = "pinned.json"
MEAN = "mean/"  # before a parameter's name, among what a strategy remembers
_FILES = (_MODEL, _STRATEGY, _STATE)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, beside the model itself.

    Attributes:
        run: Tells this run from others of the same study; a run that is resumed keeps it.
        round: Rounds committed.
        best_round: The model with the best validation metric so far; -1 before one is measured.
        best_value: Its metric; NaN before one is measured.
        history_bytes: Length of the history file that belongs to this commit.
        stopped: Whether the run ended before its last round (early stopping).
        usual_norm: Median distance that the last round's updates went; NaN if not measured.
        counted: By site, the last round whose update was taken in.
        ledgers: By site, the last entry of its privacy ledger that it has reported in this run.
    """

    digest: str
    run: str
    round: int
    best_round: int = -1
    best_value: float = float("nan")
    history_bytes: int = 0
    stopped: bool = False
    usual_norm: float = float("nan")
    counted: dict[str, int] = field(default_factory=dict)
    ledgers: dict[str, ChainHead] = field(default_factory=dict)

    def site_progress(self, site: str) -> SiteProgress:
        """Return what the next instruction says to a site alone."""
        return SiteProgress(self.counted.get(site, 0), self.ledgers.get(site, NO_LEDGER))


@dataclass(frozen=True, slots=True)
class Commit:
    """A model and where the run stood with it.

    Attributes:
        strategy: What the server's strategy remembers: momentum, control variates, and the mean of
            the rounds' models under :data:`MEAN` where the study has one.
    """

    progress: Progress
    parameters: Parameters = field(repr=False)
    strategy: Parameters = field(default_factory=dict, repr=False)

    @property
    def evaluated(self) -> Parameters:
        """What is evaluated and released: the mean of all models so far, where there is one."""
        return under(MEAN, self.strategy) or self.parameters


class CheckpointStore:
    """The commits of one run, in one folder."""

    def __init__(self, folder: Path, keep: int = 2, durable: bool = True) -> None:
        """Open the commits in a folder.

        Args:
            keep: How many of the newest commits stay.
            durable: Whether a commit waits for the disk, to survive a power cut. A simulation does
                without: what a killed process wrote is safe with the kernel, and a commit torn by a
                power cut is found by its hashes, so that the one before it is used.
        """
        self.folder = folder
        self._keep = keep
        self._durable = durable

    @property
    def history_path(self) -> Path:
        """The history that the commits vouch for."""
        return self.folder / "history.jsonl"

    def commit(self, commit: Commit) -> None:
        """Write a commit, whole or not at all, then remove old ones (the best one stays)."""
        place = self._place(commit.progress.round)
        temporary = place.with_suffix(".part")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_model(
            temporary / _MODEL,
            commit.parameters,
            {"round": str(commit.progress.round)},
            self._durable,
        )
        if commit.strategy:
            save_model(temporary / _STRATEGY, commit.strategy, {}, self._durable)
        self._write(temporary / _STATE, json.dumps(_state(commit.progress)))
        seal = {name: _sha256(temporary / name) for name in _FILES if (temporary / name).exists()}
        self._write(temporary / _SEAL, json.dumps(seal))
        if self._durable:
            flush(temporary)
        shutil.rmtree(place, ignore_errors=True)
        put_in_place(temporary, place, self._durable)
        self._prune(commit.progress)

    def latest(self) -> Commit | None:
        """Return the newest commit whose hashes agree, None if there is none."""
        for number in sorted(self._rounds(), reverse=True):
            try:
                return self.load(number)
            except RunError:
                continue
        return None

    def load(self, number: int) -> Commit:
        """Return the commit of a round.

        Raises:
            RunError: It is absent or damaged.
            InputError: Another version of wardround wrote it.
        """
        place = self._place(number)
        try:
            seal = json.loads((place / _SEAL).read_text(encoding="utf-8"))
            damaged = [name for name in seal if seal[name] != _sha256(place / name)]
            state = json.loads((place / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            msg = f"the checkpoint of round {number} is incomplete ({type(error).__name__})."
            raise RunError(msg) from None
        if damaged:
            msg = f"the checkpoint of round {number} is damaged: {', '.join(damaged)} changed."
            raise RunError(msg)
        if set(state) != {f.name for f in fields(Progress)}:
            msg = f"{self.folder} is of another version of wardround: start a new run elsewhere."
            raise InputError(msg)
        model = load_model(place / _MODEL).parameters
        strategy = load_model(place / _STRATEGY).parameters if _STRATEGY in seal else {}
        state["ledgers"] = {
            site: ChainHead(mark["entries"], mark["head"])
            for site, mark in state["ledgers"].items()
        }
        return Commit(Progress(**state), model, strategy)

    def pin(self, progress: Progress) -> None:
        """Keep a commit for good, and the best one that it knows of.

        It is the last one without a site that takes part from the next round on: should that site
        leave, training goes on from here.
        """
        wanted = {progress.round, progress.best_round} - {-1}
        if not wanted <= self.pinned():
            rounds = sorted(wanted | self.pinned())
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / _PINNED, json.dumps(rounds).encode(), BY_UMASK)

    def pinned(self) -> set[int]:
        """Return the rounds whose commits are kept for good."""
        try:
            return {int(number) for number in json.loads((self.folder / _PINNED).read_bytes())}
        except (OSError, ValueError, TypeError):
            return set()

    def rounds(self) -> tuple[int, ...]:
        """Return the rounds whose commits are there, whole or not."""
        return tuple(sorted(self._rounds()))

    def copy_to(self, other: "CheckpointStore", number: int, progress: Progress) -> None:
        """Put the model of a commit into another run's store, as where that run begins.

        Raises:
            RunError: The commit is absent or damaged.
        """
        commit = self.load(number)
        other.folder.mkdir(parents=True, exist_ok=True)
        other.commit(Commit(progress, commit.parameters, commit.strategy))

    def model(self, number: int) -> StoredModel:
        """Return the model of a commit that was loaded, or written, before; it stays on disk."""
        return StoredModel(self._place(number) / _MODEL)

    def _place(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}"

    def _rounds(self) -> list[int]:
        return [
            int(path.name.removeprefix("round-"))
            for path in self.folder.glob("round-*")
            if path.name.removeprefix("round-").isdigit()
        ]

    def _write(self, path: Path, text: str) -> None:
        write_new(path, text.encode(), BY_UMASK, self._durable)

    def _prune(self, progress: Progress) -> None:
        kept = {progress.best_round, *self.pinned()}
        for number in sorted(self._rounds())[: -self._keep]:
            if number not in kept:
                shutil.rmtree(self._place(number), ignore_errors=True)


def _state(progress: Progress) -> dict[str, object]:
    """Return what ``state.json`` holds."""
    ledgers = {
        site: {"entries": head.entries, "head": head.hash}
        for site, head in progress.ledgers.items()
    }
    return {**asdict(progress), "ledgers": ledgers}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
