"""The sections of a study file, each a frozen model that refuses unknown keys.

A study comes from the other side: every number has a bound, every string and list a length, and no
string holds a character that a screen obeys. The bounds are wide: they keep what reads a study busy
for seconds at most, and say nothing of what is sensible.
"""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from wardround.common.errors import known_names
from wardround.common.runtime.fields import OfForm
from wardround.common.runtime.printable import refused_texts
from wardround.common.study.registry import TASKS

# Letters of Latin scripts (to U+017F), composed: a name must not look like another one.
NAME_LETTERS = "A-Za-zÀ-ÖØ-öø-ſ0-9"
Name = Annotated[
    str,
    OfForm(
        f"^[{NAME_LETTERS}][{NAME_LETTERS} ._-]{{0,63}}$",
        "1 to 64 Latin letters (ä, é and ł count as two), digits, blanks, dots, hyphens and "
        "underscores, beginning with a letter or a digit",
        most_bytes=64,  # as many as a certificate's common name has room for
    ),
]
Text = Annotated[str, StringConstraints(max_length=256)]
LongText = Annotated[str, StringConstraints(max_length=4_096)]  # a path
Positive = Annotated[float, Field(gt=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Measured = Annotated[float, Field(ge=-1e12, le=1e12)]  # a value of a patient, or of a voxel
WholeNumber = Annotated[int, Field(ge=-(10**12), le=10**12)]
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=1, le=65_536)]  # pixels, or the width of a layer
Rounds = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]  # a year
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(known_names("task", name, TASKS))
    return name


COMMON_ORIENTATION = "RAS"  # MONAI's default too
# Of the grey values of a reference, from which images are matched to it (Nyul et al. 2000).
LANDMARK_PERCENTS = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
AS_STORED = "stored"

Task = Annotated[str, AfterValidator(_known_task), Field(json_schema_extra={"enum": [*TASKS]})]
Intensity = Literal["none", "xray", "ct", "mr", "dermoscopy", "ultrasound", "histology"]
Loss = Literal[
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
]  # the builders stand in wardround.client.training.losses


class Section(BaseModel):
    """A frozen table of the study file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_forged_text(cls, content: object) -> object:
        """Look at every string, keys included, of this section and of all beneath it."""
        if found := next(refused_texts(content), ""):
            raise ValueError(found)
        return content


class Covariate(Section):
    """One clinical value of a patient: a number, or a category with its known values.

    A number enters the network as ``(value - mean) / scale``, a category as one column a value.
    Where ``data.optional`` names it, a further column says 1 for a missing value, or for a word
    that is not listed; its own columns are then 0. Where not, such a row is refused.

    Attributes:
        reference: A category's value that the others are compared with: it has no column.
    """

    name: Name
    values: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    reference: Text = ""
    mean: Measured = 0.0
    scale: Positive = 1.0

    @property
    def width(self) -> int:
        """Number of input columns."""
        return len(self.values) or 1


class CombatSite(Section):
    """``[[data.combat.sites]]``: how far a site's values lie from the others', as ComBat found.

    Attributes:
        shifts: Of each feature, what the site adds; in the feature's units.
        scales: How many times as far the feature spreads there.
    """

    name: Name
    shifts: Annotated[tuple[Measured, ...], Field(max_length=64)]
    scales: Annotated[tuple[Positive, ...], Field(max_length=64)]


class CombatSection(Section):
    """``[data.combat]``: covariates without what is their site's, by parameters that were fitted.

    ``wardround study plan`` writes it from the sites' sums. A site without a row cannot take part:
    where its values lie is not known before ComBat is fitted anew, with its sums.

    Attributes:
        features: The covariates that are changed.
        preserve: Those whose effect is kept: a category is one column a value.
        means: Of each feature, at preserved columns of 0.
        effects: For each feature, what each preserved column adds.
    """

    features: Annotated[tuple[Name, ...], Field(min_length=2, max_length=64)]
    preserve: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    means: Annotated[tuple[Measured, ...], Field(max_length=64)]
    effects: Annotated[
        tuple[Annotated[tuple[Measured, ...], Field(max_length=64)], ...], Field(max_length=64)
    ]
    sites: Annotated[tuple[CombatSite, ...], Field(min_length=2, max_length=1_000)]


class LabelsSection(Section):
    """``[data.labels]``: what a class is called elsewhere, and whether sites may lack some.

    Attributes:
        codes: A class's code in a terminology, e.g. "SCT:64033007" or "RADLEX:RID205": a site may
            write it instead of the name, and whoever reads the model knows what is meant.
        words: What sites are likely to write, and the class that it stands for; a site's own words
            (``[labels.words]`` of its ``site.toml``) win.
        partial: Whether a site takes part that has annotated some of the classes alone.
    """

    codes: Annotated[dict[Name, Text], Field(max_length=10_000)] = Field(default_factory=dict)
    words: Annotated[dict[Text, Name], Field(max_length=10_000)] = Field(default_factory=dict)
    partial: bool = False


class OutcomeSection(Section):
    """``[data.outcome]``: what a task without classes predicts.

    Attributes:
        name: What it is, e.g. "age"; reports and predictions call it so.
        unit: Of what the column label says, e.g. "years"; "" where it has none.
        range: From where to where the number lies. A label outside is refused, and an estimate
            outside is cut to it: so one patient moves every sum by a bounded amount.
        mean: The network learns ``(number - mean) / scale``; the middle of the range if absent.
        scale: A quarter of the range if absent.
        times: Of a time to event: the upper ends of the intervals that its hazard is told for. The
            last is the horizon, at which follow-up ends.
    """

    name: Name = "outcome"
    unit: Annotated[str, StringConstraints(max_length=32)] = ""
    range: tuple[Measured, Measured] | None = None
    mean: Measured | None = None
    scale: Positive | None = None
    times: Annotated[tuple[Positive, ...], Field(max_length=100)] = ()

    @property
    def low(self) -> float:
        """The least number that a label may be."""
        return self.range[0] if self.range else 0.0

    @property
    def width(self) -> float:
        """From the least to the largest number."""
        return self.range[1] - self.range[0] if self.range else 1.0

    @property
    def centre(self) -> float:
        """What the network's 0 stands for."""
        return self.low + self.width / 2 if self.mean is None else self.mean

    @property
    def step(self) -> float:
        """What the network's 1 is above its 0."""
        return self.width / 4 if self.scale is None else self.scale

    def with_unit(self, value: float) -> str:
        """Return a number as a person reads it, four digits and the unit."""
        return f"{value:.4g} {self.unit}".rstrip()


class StudySection(Section):
    """``[study]``: what the study is called and what it learns."""

    name: Name
    task: Task
    description: Annotated[str, StringConstraints(max_length=4_000)] = ""


class HarmonisationSection(Section):
    """``[data.harmonisation]``: images of different scanners made alike, each by itself.

    No number of it comes from a hospital: landmarks are those of a public reference.

    Attributes:
        bias_correction: Whether a smooth shading is divided out, as N4 does.
        landmarks: For each plane the grey values of a reference at :data:`LANDMARK_PERCENTS` of its
            foreground; every image's quantiles are moved there.
        foreground: The voxels whose quantiles count: those that are not 0, those above the image's
            mean, or all.
    """

    bias_correction: bool = False
    landmarks: Annotated[
        tuple[Annotated[tuple[Measured, ...], Field(max_length=64)], ...], Field(max_length=768)
    ] = ()
    foreground: Literal["nonzero", "above-mean", "all"] = "nonzero"

    @property
    def is_asked(self) -> bool:
        """Whether it changes an image."""
        return self.bias_correction or bool(self.landmarks)


class DataSection(Section):
    """``[data]``: the contract between a site's images and the network.

    Attributes:
        ignore_label: The label of voxels in a mask that nobody annotated: they count in no loss and
            in no metric.
        orientation: Where the axes of a volume point to; None is :data:`COMMON_ORIENTATION` for
            every file that says how it lies. ``stored`` leaves volumes as they are.
        resample_to: Whether a mask or channel on another grid than the first channel's is brought
            onto that ("image"), or refused.
        optional: Channels and covariates that an examination, or a whole site, may lack. The
            network learns what their absence means; an absent one is never a zero among others.
    """

    kind: Literal["image", "table"] = "image"
    channels: Annotated[tuple[Name, ...], Field(max_length=256)] = ("image",)
    dimensions: Literal[2, 3] = 2
    colour: bool = False
    classes: Annotated[tuple[Name, ...], Field(max_length=10_000)] = ()
    outcome: OutcomeSection | None = None
    multi_label: bool = False
    ignore_label: Annotated[int, Field(ge=-32_768, le=65_535)] | None = None
    size: Annotated[tuple[Size, ...], Field(max_length=8)] | None = None
    fit: Literal["resize", "pad"] = "resize"
    spacing: Annotated[tuple[Positive, ...], Field(max_length=8)] | None = None
    orientation: (
        Annotated[
            str,
            OfForm("^([LR][AP][SI]|stored)$", "three letters: L or R, A or P, S or I; or 'stored'"),
        ]
        | None
    ) = None
    resample_to: Literal["image"] | None = None
    intensity: Intensity = "none"
    window: tuple[Measured, Measured] | None = None
    scaling: tuple[Measured, Positive] | None = None
    denoise: bool = False
    harmonisation: HarmonisationSection = HarmonisationSection()
    augmentation: Literal[
        "none", "light", "xray", "ct", "mr", "dermoscopy", "ultrasound", "histology"
    ] = "none"
    covariates: Annotated[tuple[Covariate, ...], Field(max_length=10_000)] = ()
    covariate_scaling: Literal["study", "site"] = "study"
    optional: Annotated[tuple[Name, ...], Field(max_length=10_256)] = ()
    combat: CombatSection | None = None
    labels: LabelsSection = LabelsSection()

    @property
    def planes(self) -> int:
        """Number of input planes of the network: channels times colours."""
        return len(self.channels) * (3 if self.colour else 1)

    def of_channel(self, place: int) -> "DataSection":
        """Return the contract for one channel: of the landmarks those of its own planes alone."""
        landmarks = self.harmonisation.landmarks
        if not landmarks:
            return self
        planes = self.planes // len(self.channels)
        own = landmarks[place * planes : (place + 1) * planes]
        harmonisation = self.harmonisation.model_copy(update={"landmarks": own})
        return self.model_copy(update={"harmonisation": harmonisation})

    @property
    def input_planes(self) -> int:
        """Number of planes of a network of all channels: those, and a flag an optional channel."""
        return self.planes + len(self.optional_channels)

    @property
    def optional_channels(self) -> tuple[str, ...]:
        """Those that an examination may lack, in the order of ``channels``."""
        if self.kind == "table":
            return ()
        return tuple(name for name in self.channels if name in self.optional)

    @property
    def optional_covariates(self) -> tuple[str, ...]:
        """Those that an examination may lack, in the order of ``covariates``."""
        return tuple(one.name for one in self.covariates if one.name in self.optional)

    @property
    def value_width(self) -> int:
        """Number of columns of the covariates' values."""
        return sum(covariate.width for covariate in self.covariates)

    @property
    def covariate_width(self) -> int:
        """Number of columns that enter the network beside the images.

        The values of the covariates, then a flag an optional covariate, then a flag an optional
        channel: 1 where it is missing.
        """
        return self.value_width + len(self.optional_covariates) + len(self.optional_channels)


class ModelSection(Section):
    """``[model]``: a network by name, and its free choices.

    Attributes:
        fusion: Where channels and clinical values come together: as planes of one network, inside
            of a network whose channels have layers of their own, or at the logits.
        adapter_rank: Rank of LoRA adapters; the network is then frozen but for them and its head.
        adapter_scale: What their output is multiplied by, alpha / r in the paper.
        weights_sha256: Hash of a file of pretrained weights that training starts from, or that lie
            beneath the adapters; drawn if absent.
        frozen: Patterns of numbers that training leaves as they are, and that do not travel.
        anchors: Of a detector: sides of the squares or cubes that its boxes start from, in voxels,
            one a level, the finest first.
        test_time_statistics: What part of a batch normalisation's statistics are the image's own
            where the network is evaluated; None trusts those of the training alone.
    """

    network: Text
    features: Annotated[tuple[Size, ...], Field(max_length=64)] | None = None
    anchors: Annotated[tuple[Size, ...], Field(max_length=8)] | None = None
    normalisation: Literal["default", "batch", "instance", "group", "layer", "none"] = "default"
    activation: Literal["default", "relu", "leakyrelu", "prelu", "gelu", "elu", "swish"] = "default"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fusion: Literal["early", "intermediate", "late"] = "early"
    adapter_rank: Annotated[int, Field(ge=1, le=256)] | None = None
    adapter_scale: Positive = 1.0
    weights_sha256: Annotated[str, OfForm("^[0-9a-f]{64}$", "64 hexadecimal digits")] | None = None
    frozen: Annotated[tuple[Text, ...], Field(max_length=1_000)] = ()
    test_time_statistics: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def adapted(self) -> bool:
        """Whether a part of the network is frozen, so that only the rest is trained and sent."""
        return self.adapter_rank is not None or bool(self.frozen)


class AdversarialSection(Section):
    """``[training.adversarial]``: training images are changed against the network at each step.

    Madry et al. 2018 (arXiv 1706.06083): the worst image within ``epsilon`` of each training image
    is looked for by ``steps`` steps of projected gradient ascent, and trained on instead of it.

    Attributes:
        epsilon: How far a grey value may go, in 255ths of the image's range.
        fraction: Share of each batch that is changed; the rest is trained on as it is.
        start_round: The first round in which it is done.
    """

    epsilon: Annotated[float, Field(gt=0, le=64)] = 4.0
    steps: Annotated[int, Field(ge=1, le=100)] = 3
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    start_round: Rounds = 1


class MaskingSection(Section):
    """``[training.masking]``: what pretraining hides of each image (Xie et al. 2022, SimMIM).

    Attributes:
        fraction: Share of the image that is hidden.
        patch: Side of the squares or cubes that are hidden, in pixels; an eighth of the image's
            shortest side where absent.
    """

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.6
    patch: Size | None = None


class TrainingSection(Section):
    """``[training]``: one site's work between two messages."""

    loss: Loss | None = None
    class_weights: (
        Literal["none", "balanced"] | Annotated[tuple[Positive, ...], Field(max_length=10_000)]
    ) = "none"
    optimiser: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "cosine", "polynomial", "step"] = "constant"
    warmup: Fraction = 0.0
    batch_size: Size = 32
    local_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    local_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gradient_clip: Positive | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    patch_size: Annotated[tuple[Size, ...], Field(max_length=8)] | None = None
    patches_per_image: Size = 1
    foreground_fraction: Fraction = 0.5
    adversarial: AdversarialSection | None = None
    masking: MaskingSection | None = None


class StrategyOptions(Section):
    """``[federation.options]``: the numbers of a strategy.

    A number that the chosen strategy does not read is refused. Each line says who reads it.
    """

    # The local objective.
    proximal_weight: NonNegative = 0.01  # proximal: mu of FedProx
    dynamic_weight: Positive = 0.01  # dynamic: alpha of FedDyn
    contrastive_weight: NonNegative = 1.0  # contrastive: mu of MOON
    contrastive_temperature: Positive = 0.5  # contrastive: tau of MOON
    feature_weight: NonNegative = 0.01  # small-features: alpha of FedSR's L2 term
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
        compression: How a site's change is written in fewer bytes; what is lost is sent later.
        kept_fraction: For "top-k", the share of the numbers that is sent.
        buffer_size: Asynchronous: the model moves on after this many updates, whoever sent them.
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
    compression: Literal["none", "float16", "bfloat16", "int8", "int4", "top-k"] = "none"
    kept_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    buffer_size: Annotated[int, Field(ge=1, le=100_000)] | None = None


class PrivacySection(Section):
    """``[privacy]``: what is promised to the patients.

    Every number is public: it comes from the study and never from what a site holds. Each key has a
    mode that reads it, and a key that the mode does not read is refused.

    Attributes:
        mode: "patient" hides each patient of a site from everybody outside it. "site" hides each
            site from whoever sees the model, but not from the server.
        epsilon: What may be spent in all rounds; the noise is solved for it. 8 where neither this
            nor ``noise_multiplier`` is given.
        delta: The chance beside epsilon; less than 1 / (10 x patients of the smallest site).
        noise_multiplier: Standard deviation of the noise over ``clip_norm``, instead of epsilon.
        clip_norm: Largest norm of what one unit (patient or site) adds to a sum.
        sampling_rate: Patient: probability that a patient takes part in a step.
        expected_patients: Patient: what the sum of a step is divided by; the batch size if absent.
        examples_per_patient: Patient: most examples (slices, patches) of a patient in a step.
        augmentation_copies: Patient: how often an example enters a step, each time augmented anew.
            A patient's examples are averaged, so it costs time and no privacy (De et al. 2022).
        microbatch: Patient: examples in memory at once. It changes no result.
        largest_weight: Patient: what a model that a site is sent may hold, in absolute value. The
            hospital's own bound holds where it is smaller, or where this is absent.
        validation_epsilon: Patient: what all measurements on validation patients may spend on one
            of them; the epsilon of the study if absent. 0: they are not measured.
        test_epsilon: Patient: the same of the one measurement on test patients.
        adaptive_clipping: Site: whether the clip norm follows a quantile of the updates' norms.
        clip_quantile: Site: that quantile.
        count_noise: Site: standard deviation of the noise on the count that the quantile is read
            from; 1.64 times the noise multiplier if absent, which raises the noise on the sum by
            5 %.
    """

    mode: Literal["none", "patient", "site"] = "none"
    epsilon: Annotated[float, Field(gt=0, le=1_000)] | None = None
    delta: Annotated[float, Field(ge=1e-15, lt=1)] = 1e-5
    noise_multiplier: Annotated[float, Field(gt=0, le=1e6)] | None = None
    clip_norm: Positive = 1.0
    sampling_rate: Annotated[float, Field(ge=1e-6, le=1)] = 0.05
    expected_patients: PositiveInt | None = None
    examples_per_patient: Size = 8
    augmentation_copies: Annotated[int, Field(ge=1, le=1_024)] = 1
    microbatch: Size = 32
    largest_weight: Positive | None = None
    validation_epsilon: Annotated[float, Field(ge=0, le=1_000)] | None = None
    test_epsilon: Annotated[float, Field(ge=0, le=1_000)] | None = None
    adaptive_clipping: bool = False
    clip_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    count_noise: Positive | None = None


InsideOne = Annotated[float, Field(gt=0, lt=1)]


def _by_class(content: object) -> object:
    if not isinstance(content, dict):
        msg = "write it by class, as { disease = 0.02 }"
        raise ValueError(msg)  # pydantic turns it into a refusal
    return content


class OperatingPoint(Section):
    """``operating_point``: what the threshold that is chosen on validation patients shall reach.

    Attributes:
        sensitivity: At least this share of a class's cases is found.
        specificity: At least this share of the others is left alone, instead.
    """

    sensitivity: InsideOne | None = None
    specificity: InsideOne | None = None


class EvaluationSection(Section):
    """``[evaluation]``: what is measured, and on whom.

    Attributes:
        subgroups: By what the patients are grouped: covariates, further columns of the manifest, or
            "quality", which is computed from the image.
        bands: Of a number among these the upper ends of all bands but the last.
        operating_point: For each class by itself; of two classes for the second.
        prevalence: Which share of the people has a class where the model would be used.
    """

    metric: Text | None = None
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.15
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.15
    # Keys of wardround.common.study.plans.packs.PACKS: sums that leave once, at the end
    pack: Annotated[tuple[Text, ...], Field(max_length=8)] = ()
    pack_bins: Annotated[int, Field(ge=10, le=1_000)] = 100  # of the scores in a pack
    surface_tolerance_mm: Positive = 1.0
    score_bins: Annotated[int, Field(ge=10, le=100_000)] = 1000
    keep: Literal["best", "last"] = "best"
    margin: Positive = 0.02
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    subgroups: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    bands: Annotated[
        dict[Name, Annotated[tuple[Measured, ...], Field(min_length=1, max_length=20)]],
        Field(max_length=32),
    ] = Field(default_factory=dict)
    operating_point: OperatingPoint | None = None
    prevalence: Annotated[
        dict[Text, InsideOne], Field(max_length=10_000), BeforeValidator(_by_class)
    ] = Field(default_factory=dict)


class CombatColumn(Section):
    """``[[statistics.combat]]``: a covariate that ComBat is fitted to.

    Attributes:
        low: A value below counts as this: no patient moves a sum further. Of a category nothing.
        high: And one above as this.
        preserve: Whether its effect on the others is kept, and its own values are not changed.
    """

    name: Name
    low: Measured = 0.0
    high: Measured = 1.0
    preserve: bool = False


class StatisticsSection(Section):
    """``[statistics]``: histograms of the sites' training data, from which a study is planned.

    Every edge follows from these keys, and so stands under the digest that a hospital approves.

    Attributes:
        ask: Whether the run asks for the statistics; it then trains nothing.
        epsilon: What the statistics spend on a training patient, with ``privacy.mode = "patient"``.
        intensity: From where to where intensities are counted; what is outside counts at the end.
        intensity_bins: Into how many bins.
        spacing_step_mm: A voxel's sides are counted in steps of this.
        size_step: The image's sides are counted in steps of so many voxels.
        extent_step_mm: And in steps of so many millimetres.
        combat: Covariates of whose products the sums are asked for instead of histograms, from
            which ComBat is fitted.
    """

    ask: bool = False
    epsilon: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    intensity: tuple[Measured, Measured] | None = None
    intensity_bins: Annotated[int, Field(ge=8, le=4_096)] = 256
    spacing_step_mm: Annotated[float, Field(ge=0.001, le=10)] = 0.05
    size_step: Annotated[int, Field(ge=1, le=64)] = 4
    extent_step_mm: Annotated[float, Field(ge=0.1, le=100)] = 5.0
    combat: Annotated[tuple[CombatColumn, ...], Field(max_length=64)] = ()


class Shift(Section):
    """One change that makes a site's scanner differ from the others'."""

    kind: Literal["contrast", "bias-field", "noise", "blur", "scaling"]
    strength: NonNegative = 1.0
    sites: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()


class Lacking(Section):
    """Channels or covariates that some of the simulated sites have of none of their patients."""

    names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10_000)]
    sites: Annotated[tuple[Text, ...], Field(min_length=1, max_length=10_000)]


class Adversary(Section):
    """Sites that attack the federated training: named, or as many as ``count`` drawn by the seed.

    ``strength`` is the attack's own: a factor, or a standard deviation; its default where absent.
    """

    kind: Literal[
        "label-flip",
        "sign-flip",
        "gaussian",
        "scaling",
        "alie",
        "inner-product",
        "backdoor",
    ]  # explained in wardround.simulations.adversaries.manipulations
    sites: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    count: Annotated[int, Field(ge=1, le=100_000)] | None = None
    strength: Positive | None = None
    target: Text | None = None  # backdoor: the class that the trigger stands for; else the first


class SimulationSection(Section):
    """``[simulation]``: a stand-in for hospitals, which they and the digest ignore."""

    data: Text = "folder"
    options: Annotated[
        dict[Text, LongText | WholeNumber | Measured | bool], Field(max_length=100)
    ] = Field(default_factory=dict)
    split: Literal["natural", "iid", "dirichlet", "quantity", "one-large", "classes"] = "iid"
    sites: Annotated[int, Field(ge=1, le=100_000)] = 4
    alpha: Positive = 0.5
    classes_per_site: PositiveInt = 2
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    shift: Annotated[tuple[Shift, ...], Field(max_length=1_000)] = ()
    lacking: Annotated[tuple[Lacking, ...], Field(max_length=1_000)] = ()
    adversary: Annotated[tuple[Adversary, ...], Field(max_length=1_000)] = ()
    compare: bool = True
    keep_updates_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 64
