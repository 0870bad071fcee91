"""Evidence of a study that protects its patients: one noised measurement of the test patients.

It is an evaluation like those of validation patients: charged to the patients it is about before it
is computed, given once, with ``privacy.test_epsilon``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from flwr.app import RecordDict
from flwr.serverapp import Grid

from wardround.common.messages.instructions import Instruction, addressed
from wardround.common.study.study import Study
from wardround.server.checkpoints.evidence import EvidenceRow, finite
from wardround.server.checkpoints.store import Commit
from wardround.server.rounds.evaluation import Measured, measure_model
from wardround.server.sites.exchange import Node
from wardround.server.sites.participation import Participation

_REACH = 1.959964  # standard errors of a 95 % interval
_NOTE = "the interval is that of the noise alone"


def measure_with_noise(
    grid: Grid, study: Study, nodes: Sequence[Node], commit: Commit, participation: Participation
) -> tuple[EvidenceRow, ...]:
    """Have each site measure a model on its test patients, with noise; return the rows."""
    progress = commit.progress
    instruction = Instruction(
        progress.digest, progress.run, progress.round, dict(commit.parameters), split="test"
    )

    def told(content: RecordDict, node: Node) -> RecordDict:
        own = progress.site_progress(node.site)
        ledger = participation.ledgers.known(node.site).or_later(own.ledger)
        return addressed(content, replace(own, ledger=ledger))

    found = measure_model(grid, study, nodes, instruction, told, participation.deadlines)
    return tuple(_rows(found))


def _rows(found: Measured) -> Iterator[EvidenceRow]:
    for refusal in found.refusals:
        yield EvidenceRow("", refusal.site, "", "refused", note=refusal.reason)
    for measurement in found.values:
        note = "numbers with noise, charged to the test patients"
        yield EvidenceRow("", measurement.site, "", "told", note=note)
    for measurement in found.values:
        for one in measurement.values:
            reach = _REACH * one.standard_error if one.standard_error else float("nan")
            yield EvidenceRow(
                "intervals",
                measurement.site,
                one.class_name,
                one.metric,
                finite(one.value),
                finite(one.value - reach),
                finite(one.value + reach),
                one.error_bound,
                patients=max(0, one.support),
                note=_NOTE if one.standard_error else "",
            )
