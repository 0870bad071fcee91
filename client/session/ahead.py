"""Several sites of one simulation trained together, before each is asked for its update.

What a site answers is the work of its own session: it checks, evaluates, packs and remembers as
always, and finds its network trained. Where it does not, because its patients were swapped in
between, say, it trains alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wardround.client.data.cohort import Cohort
from wardround.client.session.session import SiteSession
from wardround.client.training.local import LocalWork
from wardround.client.training.objectives.corrections import linear_correction
from wardround.client.training.schedule import names_memory_remedy
from wardround.client.training.stacked.eligibility import why_not_network, why_not_stacked
from wardround.client.training.stacked.steps import StackedSite, are_alike, train_stacked
from wardround.common.messages.instructions import Instruction
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import Parameters, write_parameters
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True, eq=False)
class AheadWork:
    """What a training that is still to be asked for came to.

    Attributes:
        cohort: The patients that were trained on.
        trained: The trained weights by name; a row of a stack each, on the network's device.
    """

    instruction: Instruction
    cohort: Cohort
    trained: Parameters
    work: LocalWork

    def is_for(self, instruction: Instruction, cohort: Cohort) -> bool:
        """Whether an instruction asks for this, of the same patients."""
        mine, asked = self.instruction, instruction
        same = (mine.digest, mine.run, mine.round, mine.attempt) == (
            (asked.digest, asked.run, asked.round, asked.attempt)
        )
        return same and cohort is self.cohort


def why_not_ahead(study: Study) -> str:
    """Return why sites of a study cannot be trained together; "" where they can.

    Raises:
        StudyError: The study's network cannot be built.
    """
    return why_not_stacked(study) or why_not_network(build_network(study, 0))


@names_memory_remedy
def train_ahead(asked: Sequence[tuple[SiteSession, Instruction]]) -> None:
    """Train what several sites of one process are about to be asked for, as one stack.

    Args:
        asked: Sites that share a network, of a study that :func:`why_not_ahead` allows.

    Raises:
        WardroundError: One of them cannot be trained; alone, it says so itself.
        FullMemoryError: The stack does not fit into memory.
    """
    started = time.perf_counter()
    sites = []
    for session, instruction in asked:
        start, batches = session.begin(instruction)
        sites.append(StackedSite(start, batches, linear_correction(start)))
    if not are_alike(sites):
        return
    network = asked[0][0].context.network
    write_parameters(network, sites[0].start.parameters)
    found = train_stacked(network, sites)
    each = (time.perf_counter() - started) / len(sites)
    for (session, instruction), done in zip(asked, found, strict=True):
        if done is not None:
            work = replace(done.work, seconds_ahead=each)
            ahead = AheadWork(instruction, session.cohorts.train, done.trained, work)
            session.keep_ahead(ahead)
