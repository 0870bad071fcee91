"""Which networks train under patient-level privacy, and how their clipped gradients are computed.

Free of heavy imports: the study rules read it. Every entry is held against one backward pass a
patient by ``tests/unit/client/privacy/gradients/test_clipped_sum.py``.
"""

from dataclasses import dataclass
from typing import Literal

from wardround.common.files.packages.references import OpenTable


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """How a network trains under patient-level privacy.

    Attributes:
        normalisations: Choices of ``model.normalisation`` that keep a patient's gradient free of
            the other patients of the batch. "default" is among them where the network's own is.
        method: A name of ``client.privacy.gradients.METHODS``: the fastest exact one, measured.
        note: What a person should know; empty where there is nothing.
        volume_method: The method for volumes, if another one is faster there.
        opacus: The way in which Opacus finds its gradients: a name of ``OPACUS_MODES``;
            "verified" where a site finds out itself which way is exact, "" where none is.
        reuses_activation: Whether a block calls its one activation twice. One that learns a number
            (PReLU) has two gradients then, which ghost clipping does not add up.
    """

    normalisations: tuple[str, ...]
    method: str
    note: str = ""
    volume_method: str | None = None
    opacus: Literal["hooks", "ew", "verified", ""] = ""
    reuses_activation: bool = False

    def method_for(self, dimensions: int) -> str:
        """Return the method for images of 2 or 3 dimensions, or a table (0)."""
        return self.volume_method or self.method if dimensions == 3 else self.method


_OWN_IS_SAFE = ("default", "group", "instance")
_OWN_IS_BATCH = ("group", "instance")
_BATCH_NOTE = "its own normalisation is over the batch, so another must be chosen"
_LEVELS_NOTE = "its head is asked at each level, so that each patient takes a pass of its own"
_WHOLE_NOTE = "a whole gradient for every patient of a micro-batch is in memory at once"

_HOOKS: Literal["hooks"] = "hooks"
_EW: Literal["ew"] = "ew"
_OTHER_NOTE = (
    "its layers were not verified, so that each patient takes a pass of its own, and one that "
    "keeps numbers from pass to pass is refused"
)
_OWN: dict[str, PrivateNetwork] = {
    "small-cnn": PrivateNetwork(("default", "group", "instance", "none"), "ghost", opacus=_HOOKS),
    "convnext": PrivateNetwork(("default",), "ghost"),
    "mlp": PrivateNetwork(("default", "layer", "none"), "ghost", opacus=_HOOKS),
    "unet": PrivateNetwork(_OWN_IS_SAFE, "ghost", opacus=_HOOKS),
    "basic-unet": PrivateNetwork(_OWN_IS_SAFE, "ghost", opacus=_HOOKS),
    "attention-unet": PrivateNetwork(_OWN_IS_BATCH, "ghost", _BATCH_NOTE, opacus=_HOOKS),
    "segresnet": PrivateNetwork(_OWN_IS_SAFE, "ghost", opacus=_EW, reuses_activation=True),
    "dynunet": PrivateNetwork(_OWN_IS_SAFE, "ghost", reuses_activation=True),
    "densenet121": PrivateNetwork(_OWN_IS_BATCH, "ghost", _BATCH_NOTE, opacus=_HOOKS),
    "resnet18": PrivateNetwork(_OWN_IS_BATCH, "ghost", _BATCH_NOTE, opacus=_EW),
    "resnet50": PrivateNetwork(_OWN_IS_BATCH, "ghost", _BATCH_NOTE, opacus=_EW),
    "efficientnet-b0": PrivateNetwork(_OWN_IS_BATCH, "ghost", _BATCH_NOTE, opacus=_HOOKS),
    "vit": PrivateNetwork(("default",), "vmap", _WHOLE_NOTE, "loop"),
    "swin-unetr": PrivateNetwork(_OWN_IS_SAFE, "vmap", _WHOLE_NOTE, "loop"),
    "retinanet": PrivateNetwork(("default", "group"), "loop", _LEVELS_NOTE, opacus=_HOOKS),
}
PRIVATE_NETWORKS = OpenTable(
    _OWN, PrivateNetwork(("default",), "loop", _OTHER_NOTE, opacus="verified"), with_monai=True
)
