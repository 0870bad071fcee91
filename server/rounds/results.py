"""What one round has taken in so far."""

from dataclasses import dataclass, field, replace

from wardround.common.files.hash_chain import ChainHead
from wardround.common.messages.instructions import NO_LEDGER
from wardround.common.messages.replies import SiteUpdate
from wardround.common.metrics.sums import MetricSums
from wardround.common.metrics.values import SiteValues
from wardround.server.checkpoints.history import RefusalRecord, SiteRecord
from wardround.server.checkpoints.store import Progress


@dataclass(slots=True)
class RoundResults:
    """What one round has taken in so far.

    Attributes:
        norms: How far each update went.
        counted: The round of each site's update that was taken in; an asynchronous one is older.
        ledgers: What each site said of its privacy ledger, counted or not.
        sums: What the sites measured of the round's own model.
    """

    number: int
    bytes_down: int = 0
    norms: list[float] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    ledgers: dict[str, ChainHead] = field(default_factory=dict)
    sites: list[SiteRecord] = field(default_factory=list)
    refusals: list[RefusalRecord] = field(default_factory=list)
    sums: dict[str, MetricSums | SiteValues] = field(default_factory=dict)

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

    def refuse(self, site: str, reason: str) -> None:
        """Note that a site did not contribute."""
        self.refusals.append(RefusalRecord(site, reason))

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
