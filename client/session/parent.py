"""What a site knows of the model that its study goes on from, and of what its old patients need."""

import torch
from torch import Tensor, nn

from wardround.client.data.cohort import Cohort
from wardround.client.session.model_context import ModelContext
from wardround.client.site.device import arranged_for
from wardround.client.training.objectives.base import Loss, ParentKnowledge
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import load_pretrained
from wardround.common.parameters.schema import Parameters
from wardround.common.runtime.seeds import generator_for

_MOST_EXAMPLES = 256  # of old ones, each a pass of its own: more change the mean square little


def know_parent(context: ModelContext, old: Cohort | None, loss: Loss) -> ParentKnowledge:
    """Return what the study's objective holds on to.

    Args:
        old: The site's training examinations of earlier waves; None where it has none.
        loss: The study's, by which the Fisher information is found.

    Raises:
        ModelError: The parent's model is not here, or another one.
        ValueError: The study goes on from none.
    """
    study, held = context.study, context.study.continual
    if held is None:
        msg = "the study goes on from no other one"
        raise ValueError(msg)
    network = build_network(study, study.federation.seed)
    drawn = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    load_pretrained(network, study)
    network = network.to(context.device)
    network = arranged_for(network, context.device, study.training.precision)
    network.requires_grad_(True).eval()
    fisher: Parameters = {}
    if held.method == "ewc" and old is not None and len(old):
        fisher = fisher_information(network, old, loss, study.federation.seed)
        if held.classes is not None and held.classes < study.class_count:
            fisher = _of_parent(fisher, network, drawn)
    return ParentKnowledge(
        network=network.requires_grad_(False),
        classes=held.classes or study.output_count,
        is_exclusive=not study.data.multi_label,
        weight=1.0 if held.weight is None else held.weight,
        temperature=held.temperature,
        fisher=fisher,
    )


def fisher_information(network: nn.Module, old: Cohort, loss: Loss, seed: int) -> Parameters:
    """Return the diagonal of the empirical Fisher information, divided by its mean.

    ``F_i``: the mean over old examples of the squared derivative of the study's loss by weight i,
    each example with its true label; of at most 256 of them.

    Args:
        network: In evaluation mode; its weights have gradients.
    """
    device = next(network.parameters()).device
    generator = generator_for(seed, "fisher", "examples")
    chosen = torch.randperm(len(old), generator=generator)[:_MOST_EXAMPLES]
    weights = dict(network.named_parameters())
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for index in chosen:
        batch = old.batch(index[None], generator, device)
        network.zero_grad(set_to_none=True)
        loss(network(*batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call] # torch's own
        for name, weight in weights.items():
            if weight.grad is not None:
                sums[name] += weight.grad.square()
    network.zero_grad(set_to_none=True)
    return _divided_by_mean(sums)


def _divided_by_mean(sums: dict[str, Tensor]) -> Parameters:
    """Return numbers whose mean over all weights is 1; nothing where all are 0, or one is none."""
    total = torch.stack([each.double().sum() for each in sums.values()]).sum()
    mean = float(total) / sum(each.numel() for each in sums.values())
    if not 0 < mean < float("inf"):
        return {}
    return {name: each / mean for name, each in sums.items()}


def _of_parent(fisher: Parameters, network: nn.Module, drawn: Parameters) -> Parameters:
    """Return the information without that of weights that the parent did not have."""
    now = dict(network.named_parameters())
    return {name: each * (now[name].cpu() != drawn[name]).to(each) for name, each in fisher.items()}
