"""``[federation]``: the rounds, a strategy and its numbers."""

from typing import Annotated, Literal

from pydantic import Field

from wardround.common.study.sections.fields import (
    Decay,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    Rounds,
    Seconds,
    Section,
    Text,
)


class StrategyOptions(Section):
    """``[federation.options]``: the numbers of a strategy.

    A number that the chosen strategy does not read is refused. Each line says who reads it.
    """

    # The local objective.
    proximal_weight: NonNegative = 0.01  # proximal: mu of FedProx
    dynamic_weight: Positive = 0.01  # dynamic: alpha of FedDyn
    contrastive_weight: NonNegative = 1.0  # contrastive: mu of MOON
    contrastive_temperature: Positive = 0.5  # contrastive: tau of MOON
    feature_weight: NonNegative = 0.01  # small-, aligned-features, coral: alpha
    head_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5  # head-then-body: steps on the head
    personal_weight: NonNegative = 0.1  # personal-model: lambda of Ditto
    mixture: Fraction = 0.5  # mixture: alpha of APFL, the personal model's part
    finetune_steps: PositiveInt | None = None  # fine-tune: steps; those of a round if absent
    # The aggregation.
    fairness: NonNegative = 0.1  # fair-mean: q of q-FedAvg; 0 makes all sites equal
    assumed_hostile: Annotated[int, Field(ge=0, le=100_000)] = 1  # robust rules: liars
    norm_bound: Positive | None = None  # norm-bounded-mean, centred-clipping; None: their median
    weight_cap: Annotated[float, Field(ge=1, le=1e9)] | None = (
        2.0  # robust rules: times the median site
    )
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.2  # flower:FedTrimmedAvg: beta
    # The server's step.
    server_learning_rate: Positive | None = None  # all but replace
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # momentum
    server_betas: tuple[Decay, Decay] = (0.9, 0.99)  # adam, yogi
    server_epsilon: Positive = 1e-3  # adam, yogi, adagrad: tau of Reddi et al. 2021


class MaskingOptions(Section):
    """``[federation.masks]``: the whole numbers that masked updates are added up as.

    Whatever these say, no sum can overflow its modulus.

    Attributes:
        largest_change: Largest absolute value that a number of the model may change by in a round;
            a site whose update goes further leaves the round.
        most_examinations: A site with more training examinations counts as one with so many.
        most_sites: How many sites are added up at most.
        word_bits: Of a number under its mask. 32 are half the bytes, for sites that count the same;
            16 are a quarter, each number rounded at random so that the sum is right on average.
        clip_norm: A site shortens its change to this length (the L2 norm of what gradients change)
            before it is masked, so that no honest software lets a longer one into the sum.
        groups: Into how many groups the sites are drawn anew each round. The server learns a sum of
            each group, over which a robust aggregation decides; a site hides in its group alone.
        smallest_group: Of a group with fewer sites nothing is told.
    """

    largest_change: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    most_examinations: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    most_sites: Annotated[int, Field(ge=3, le=1024)] = 100
    word_bits: Literal[16, 32, 64] = 64
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None = None
    groups: Annotated[int, Field(ge=1, le=300)] = 1
    smallest_group: Annotated[int, Field(ge=3, le=1024)] = 3


class FederationSection(Section):
    """``[federation]``: the rounds, and a strategy by name or by its four choices.

    ``share``, ``objective``, ``aggregation`` and ``server_optimiser`` override what the strategy
    says; ``personal`` lists patterns of parameters that stay at the site whatever is shared.

    Attributes:
        minimum_sites: The quorum: a round with fewer updates fails.
        fraction: Share of the sites that take part in a round.
        deadline_seconds: How long a round waits for its sites; None waits for all.
        norm_limit: An update that goes more than this many times as far as the median of the round
            before is refused.
        ema: How much of the mean of all rounds' models each further round keeps. That mean is
            evaluated and is the result; the sites train on from the last model.
        compression: How a site's change is written in fewer bytes; what is lost is sent later.
        kept_fraction: For "top-k", the share of the numbers that is sent.
        buffer_size: Asynchronous: the model moves on after this many updates, whoever sent them.
        secure_aggregation: Whether the sites mask their updates, so that the server learns the sum
            of a round and nothing else.
    """

    strategy: Text = "fedavg"
    share: Text | None = None
    personal: Annotated[tuple[Text, ...], Field(max_length=1_000)] = ()
    objective: Text | None = None
    aggregation: Text | None = None
    server_optimiser: Text | None = None
    options: StrategyOptions = StrategyOptions()
    rounds: Rounds = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    minimum_sites: Annotated[int, Field(ge=1, le=100_000)] = 1
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    deadline_seconds: Seconds | None = None
    norm_limit: Annotated[float, Field(gt=1, le=1e9)] | None = None
    patience_rounds: Rounds | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    compression: Literal["none", "float16", "bfloat16", "int8", "int4", "top-k"] = "none"
    kept_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    buffer_size: Annotated[int, Field(ge=1, le=100_000)] | None = None
    secure_aggregation: bool = False
    masks: MaskingOptions = MaskingOptions()
