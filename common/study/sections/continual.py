"""``[continual]``: a study that goes on from another one, with data that came later."""

from typing import Annotated, Literal

from pydantic import Field

from wardround.common.study.sections.fields import Hash, NonNegative, Positive, Section, SiteName

Wave = Annotated[int, Field(ge=1, le=1_000)]


class ContinualSection(Section):
    """``[continual]``: a study that goes on from another one, with data that came later.

    Data come in waves, which the manifest's column ``wave`` numbers from 1; an empty cell is 1.

    Attributes:
        wave: Rows of this wave are new, those of earlier waves old; later ones are not used yet.
        parent: The digest of the study whose model it starts from; absent where it begins.
        model: The digest of that model's numbers. Whoever holds others refuses.
        classes: How many of ``data.classes`` that model knows, the first ones; absent for all.
        method: What holds on to what was learnt: ``replay`` trains on old rows too, ``ewc``
            (Kirkpatrick et al. 2017) and ``lwf`` (Li and Hoiem 2017) on new ones alone with a
            further term, ``none`` on new ones alone.
        replay: Share of each batch that is of old rows; where absent, of k waves, (k - 1) / k, so
            that each wave has the same share.
        weight: What the term of ``ewc`` or ``lwf`` is multiplied by; 1 where absent.
        temperature: Of ``lwf``: what logits are divided by before they are compared.
        margin: How far a site's metric may fall and the model still be promoted;
            ``evaluation.margin`` where absent.
        margins: Likewise of single sites.
    """

    wave: Wave = 1
    parent: Hash | None = None
    model: Hash | None = None
    classes: Annotated[int, Field(ge=1, le=10_000)] | None = None
    method: Literal["none", "replay", "ewc", "lwf"] = "replay"
    replay: Annotated[float, Field(gt=0, lt=1)] | None = None
    weight: Positive | None = None
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    margin: NonNegative | None = None
    margins: Annotated[dict[SiteName, NonNegative], Field(max_length=10_000)] = Field(
        default_factory=dict
    )

    @property
    def replayed(self) -> float:
        """The share of each batch that is of old rows, in [0, 1)."""
        return (self.wave - 1) / self.wave if self.replay is None else self.replay
