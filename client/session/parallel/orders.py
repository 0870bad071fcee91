"""What the first process of a site tells the others; pickled, between processes of one start."""

from dataclasses import dataclass

from wardround.client.session.parallel.exchange import Form


@dataclass(frozen=True, slots=True)
class Begin:
    """Build the study's network and join the group.

    Attributes:
        study: As JSON.
        annotated: The classes that the site has annotated, as the loss is built with.
    """

    study: str
    device: str
    rank: int
    size: int
    store: str
    threads: int
    annotated: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Seed:
    """Seed what dropout is drawn from."""

    seed: int


@dataclass(frozen=True, slots=True)
class Forward:
    """Take the model's numbers and some rows, run the network, send what it returns.

    Attributes:
        is_present: Whether the rows count, and what they give is sent.
    """

    inputs: tuple[Form, ...]
    is_present: bool


@dataclass(frozen=True, slots=True)
class Differentiate:
    """Take the gradients of what was returned, and add up those of the parameters."""


@dataclass(frozen=True, slots=True)
class ClipStep:
    """Take the model's numbers: a private step begins."""

    method: str
    clip_norm: float
    microbatch: int


@dataclass(frozen=True, slots=True)
class ClipPatients:
    """Take whole patients, and add their clipped gradients to the step's.

    Attributes:
        parts: The forms of images and covariates, None for what there is not, and of targets.
        counts: The examples of each patient.
    """

    parts: tuple[Form | None, Form | None, Form]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClipEnd:
    """Add up the step's sums over all processes."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Said by a process that cannot go on.

    Attributes:
        reason: Safe to show: the text of a refusal, or the type of an error.
    """

    reason: str


Order = Begin | Seed | Forward | Differentiate | ClipStep | ClipPatients | ClipEnd
