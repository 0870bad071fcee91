"""The updates of a round: the checks that one passes before it counts, and what was taken in.

One that fails is refused by name.
"""

import math
from dataclasses import dataclass, field, replace
from itertools import chain

from wardround.common.errors import RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.messages.instructions import NO_LEDGER
from wardround.common.messages.replies import SiteUpdate
from wardround.common.metrics.sums import MetricSums, SiteValues
from wardround.common.parameters.arithmetic import distance, is_finite
from wardround.common.parameters.compression import CompressionOptions, apply_update, decompress
from wardround.common.parameters.schema import Model, Parameters, Schema, check_schema, schema
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RefusalRecord, SiteRecord
from wardround.server.checkpoints.lost_sites import ALL_SITES
from wardround.server.checkpoints.store import Progress

# Beyond any network that works, and small enough that a float32 sum over sites, weighted by their
# examinations, and a server optimiser's square of it stay finite.
LARGEST_PARAMETER = 1e15


@dataclass(frozen=True, slots=True)
class UpdateChecks:
    """What an update of one cohort must be.

    Attributes:
        run: The run that the sites were asked in.
        sent: The model that the sites were sent.
        usual_norm: Median distance that the updates of the round before went; NaN if unknown.
        expected: Names, shapes and types of ``sent``.
    """

    study: Study
    run: str
    round: int
    sent: Model
    usual_norm: float
    expected: Schema = field(init=False)

    def __post_init__(self) -> None:
        """Look at the model once: it may lie on disk."""
        object.__setattr__(self, "expected", schema(self.sent))

    def admit(self, update: SiteUpdate) -> tuple[Parameters, float]:
        """Return the site's model, decompressed, and how far it went from the one it was sent.

        Returns:
            The model and the norm, which is NaN where the study sets no ``norm_limit``.

        Raises:
            WardroundError: The update is stale, malformed, not finite, or goes too far.
        """
        if (update.digest, update.round) != (self.study.digest, self.round):
            msg = f"an update for round {update.round} came in round {self.round}: not counted."
            raise RunError(msg)
        if update.run != self.run:
            msg = f"an update of another run came in round {self.round}: not counted."
            raise RunError(msg)
        model = self._model(update.parameters)
        arrays = chain(model.items(), update.auxiliary.items())
        spoilt = [name for name, tensor in arrays if not is_finite(tensor, LARGEST_PARAMETER)]
        if spoilt:
            msg = (
                f"{len(spoilt)} arrays ({spoilt[0]:.80}, ...) hold NaN or infinity, or a number "
                f"above {LARGEST_PARAMETER:g}: not counted."
            )
            raise RunError(msg)
        return model, self._checked_norm(model)

    def _model(self, arrays: Parameters) -> Parameters:
        federation = self.study.federation
        if federation.compression == "none":
            check_schema(arrays, self.expected)
            return arrays
        options = CompressionOptions(kept_fraction=federation.kept_fraction)
        update = decompress(arrays, federation.compression, options, self.expected)
        return apply_update(self.sent, update)

    def _checked_norm(self, model: Parameters) -> float:
        limit = self.study.federation.norm_limit
        if limit is None:
            return math.nan
        norm = distance(model, self.sent)
        if 0 < limit * self.usual_norm < norm:  # 0 after a round at learning rate 0: in a warm-up
            msg = (
                f"it went {norm:.3g} from the model, {norm / self.usual_norm:.1f} times as far as "
                f"usual; federation.norm_limit allows {limit:g}: not counted."
            )
            raise RunError(msg)
        return norm


@dataclass(slots=True)
class RoundResults:
    """What one round has taken in so far.

    Attributes:
        norms: How far each update went.
        counted: The round of each site's update that was taken in; an asynchronous one is older.
        ledgers: What each site said of its privacy ledger, counted or not.
        sums: What the sites measured of the round's own model.
        masked: What all of them measured of it together, in a masked round.
        lost: Why a masked round has no sum, so that the model stays as it was.
    """

    number: int
    bytes_down: int = 0
    norms: list[float] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    ledgers: dict[str, ChainHead] = field(default_factory=dict)
    sites: list[SiteRecord] = field(default_factory=list)
    refusals: list[RefusalRecord] = field(default_factory=list)
    sums: dict[str, MetricSums | SiteValues] = field(default_factory=dict)
    masked: MetricSums | None = None
    lost: str = ""

    def note(self, site: str, update: SiteUpdate) -> None:
        """Note what holds of a reply whether it will count or not."""
        self.ledgers[site] = self.ledgers.get(site, NO_LEDGER).or_later(update.ledger)

    def count(self, site: str, update: SiteUpdate, norm: float, bytes_down: int) -> None:
        """Note that a site's update was taken in."""
        self.norms.append(norm)
        self.counted[site] = update.round
        self.sites.append(
            SiteRecord(
                site=site,
                examinations=update.examinations,
                updates=update.updates,
                seconds=update.seconds,
                bytes_down=bytes_down,
                bytes_up=update.bytes_up,
                training_loss=update.training_loss,
            )
        )

    def count_masked(self, site: str, bytes_up: int) -> None:
        """Note that a site is in the sum of a masked round; of itself nothing is known."""
        self.norms.append(math.nan)
        self.counted[site] = self.number
        self.sites.append(
            SiteRecord(
                site=site,
                examinations=1,
                updates=0,
                seconds=0.0,
                bytes_down=self.bytes_down,
                bytes_up=bytes_up,
                training_loss=math.nan,
            )
        )

    def refuse(self, site: str, reason: str) -> None:
        """Note that a site did not contribute."""
        self.refusals.append(RefusalRecord(site, reason))

    def reasons(self) -> str:
        """Return who did not contribute and why, to stand within a sentence."""
        return "; ".join(f"{one.site}: {one.reason.rstrip('.')}" for one in self.refusals)

    def lose(self, why: str) -> None:
        """Note that the round has no sum; nobody contributed to it."""
        self.lost = why
        self.refuse(ALL_SITES, why)

    def onto(self, before: Progress) -> Progress:
        """Return a progress with what this round has learnt of each site."""
        ledgers = {
            site: before.ledgers.get(site, NO_LEDGER).or_later(mark)
            for site, mark in self.ledgers.items()
        }
        return replace(
            before,
            counted={**before.counted, **self.counted},
            ledgers={**before.ledgers, **ledgers},
        )
