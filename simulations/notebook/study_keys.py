"""The keys that ``Study(...)`` takes by their own names, for editors and type checkers.

A test holds them against the sections of the study file.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict

Table: TypeAlias = Mapping[str, object]
Size: TypeAlias = Sequence[int]


class _Sections(TypedDict, total=False):
    """Whole sections, as the study file has them; what a flat key says wins."""

    study: Table
    data: Table
    model: Table
    training: Table
    federation: Table
    privacy: Table
    evaluation: Table
    statistics: Table
    continual: Table
    packages: Mapping[str, str]
    simulation: Table


class _Data(TypedDict, total=False):
    description: str
    repeats: Table | None
    kind: Literal["image", "table"]
    channels: Sequence[str]
    dimensions: Literal[2, 3]
    colour: bool
    classes: Sequence[str]
    multi_label: bool
    ignore_label: int | None
    size: Size | None
    fit: Literal["resize", "pad"]
    spacing: Sequence[float] | None
    orientation: str | None
    resample_to: Literal["image"] | None
    intensity: Literal["none", "xray", "ct", "mr", "dermoscopy", "ultrasound", "histology"]
    window: Sequence[float] | None
    scaling: Sequence[float] | None
    denoise: bool
    harmonisation: Table
    augmentation: (
        Literal[
            "none", "light", "xray", "ct", "mr", "dermoscopy", "ultrasound", "histology", "nnunet"
        ]
        | str
    )
    covariates: Sequence[str | Table]
    covariate_scaling: Literal["study", "site"]
    outcome: Table | None
    combat: Table
    optional: Sequence[str]
    labels: Table


class _Model(TypedDict, total=False):
    network: str
    arguments: Mapping[str, object]
    features: Size | None
    anchors: Size | None
    normalisation: Literal["default", "batch", "instance", "group", "layer", "none"]
    activation: Literal["default", "relu", "leakyrelu", "prelu", "gelu", "elu", "swish"]
    dropout: float
    fusion: Literal["early", "intermediate", "late"]
    deep_supervision: int
    test_time_statistics: float | None
    fixer: Literal["none", "opacus"]
    adapter_rank: int | None
    adapter_scale: float
    weights_sha256: str | None
    frozen: Sequence[str]


class _Training(TypedDict, total=False):
    loss: (
        Literal[
            "cross-entropy",
            "focal",
            "bce",
            "dice",
            "dice-ce",
            "generalised-dice",
            "mse",
            "focal-giou",
            "hard-negative-giou",
            "l1",
            "huber",
            "piecewise-hazard",
            "cox",
            "masked-l1",
            "nt-xent",
        ]
        | str
    )
    class_weights: Literal["none", "balanced"] | Sequence[float]
    optimiser: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    momentum: float
    nesterov: bool
    ema: float | None
    label_smoothing: float
    mixup: float
    weight_decay: float
    schedule: Literal["constant", "cosine", "polynomial", "step"]
    warmup: float
    batch_size: int
    local_epochs: int | None
    local_steps: int | None
    sampling: Literal["shuffle", "balanced"]
    modality_dropout: float
    gradient_clip: float | None
    precision: Literal["float32", "bfloat16", "float16"]
    patch_size: Size | None
    patches_per_image: int
    foreground_fraction: float
    masking: Table | None
    adversarial: Table | None


class _Federation(TypedDict, total=False):
    strategy: str
    share: str | None
    personal: Sequence[str]
    objective: str | None
    aggregation: str | None
    server_optimiser: str | None
    rounds: int
    seed: int
    minimum_sites: int
    fraction: float
    deadline_seconds: float | None
    norm_limit: float | None
    ema: float | None
    patience_rounds: int | None
    compression: Literal["none", "float16", "bfloat16", "int8", "int4", "top-k"]
    kept_fraction: float
    buffer_size: int | None
    secure_aggregation: bool
    masks: Table


class _Privacy(TypedDict, total=False):
    mode: Literal["none", "patient", "site"]
    epsilon: float | None
    delta: float
    noise_multiplier: float | None
    noise: Literal["local", "distributed"]
    colluding_sites: int
    clip_norm: float
    sampling_rate: float
    expected_patients: int | None
    examples_per_patient: int
    augmentation_copies: int
    microbatch: int
    gradients: Literal["auto", "loop", "opacus"]
    largest_weight: float | None
    validation_epsilon: float | None
    test_epsilon: float | None
    adaptive_clipping: bool
    clip_quantile: float
    count_noise: float | None


class _Evaluation(TypedDict, total=False):
    metric: str | None
    metrics: Sequence[str]
    validation_fraction: float
    test_fraction: float
    pack: Sequence[str]
    pack_bins: int
    surface_tolerance_mm: float
    score_bins: int
    keep: Literal["best", "last"]
    margin: float
    overlap: float
    tta: Literal["none", "mirror"]
    subgroups: Sequence[str]
    bands: Mapping[str, Sequence[float]]
    operating_point: Table | None
    prevalence: Mapping[str, float]


class _Simulation(TypedDict, total=False):
    split: Literal["natural", "iid", "dirichlet", "quantity", "one-large", "classes"]
    sites: int
    alpha: float
    classes_per_site: int
    shift: Sequence[Table]
    lacking: Sequence[Table]
    adversary: Sequence[Table]
    late: Mapping[str, int]
    compare: bool
    keep_updates_mb: int
    parent: str | None


class _Learning(_Model, _Training, _Federation, total=False):
    """How it is trained."""


class StudyChanges(_Sections, _Data, _Learning, _Privacy, _Evaluation, _Simulation, total=False):
    """Every key but name and task, which ``Study(...)`` takes by position."""
