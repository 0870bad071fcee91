"""Every model on every site's test patients: who gained from training together?"""

from collections.abc import Iterator, Sequence

from flwr.serverapp import Grid

from wardround.common.messages.instructions import Instruction
from wardround.common.metrics.sums import has_surfaces
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RefusalRecord
from wardround.server.rounds.evaluation import measure_model
from wardround.server.sites.exchange import Node
from wardround.simulations.experiment.rows import KEPT, metric_rows
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import FEDERATED, MetricRow


def cross_site_rows(
    grid: Grid,
    study: Study,
    nodes: Sequence[Node],
    models: Sequence[TrainedModel],
    refusals: list[RefusalRecord],
) -> Iterator[MetricRow]:
    """Yield the test values of every model on every site, surface distances included.

    Args:
        nodes: The sites, as they introduced themselves.
        refusals: Takes in what sites refused to evaluate.
    """
    for model in models:
        instruction = Instruction(
            study.digest,
            model.run,
            model.round,
            model.parameters,
            split="test",
            surfaces=has_surfaces(study),
            personal=model.name == FEDERATED,
        )
        measured = measure_model(grid, study, nodes, instruction)
        refusals.extend(measured.refusals)
        yield from metric_rows(model.name, KEPT, measured.values)
