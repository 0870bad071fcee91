"""What a network takes of a file of pretrained weights, and what that file says of itself.

A layer is taken as a whole, where the file holds all its numbers under the same names and in the
same shapes: so a classifier takes the encoder of a network that was pretrained, and leaves what
restored images.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields

from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.runtime.printable import printable

_WRAPPERS = ("image_network.", "network.")  # parts of names of ours around MONAI's
NO_LICENCE = (
    "Wardround grants no licence to these weights. Whoever ran the study does; write it here\n"
    "before you pass the model on, and have the folder signed again.\n"
)
_KEY = "origin"  # one key: a header with several is written in another order each time
_MOST_LICENCE, _MOST_NAME = 20_000, 200  # characters
_SHOWN = 4  # names of layers


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """What a file of weights says of itself; "" where it does not.

    Attributes:
        model: The name of the model.
        digest: Of its model folder.
        study: The study that trained it.
        task: Of that study.
        licence: Of its data, and of what it started from itself.
        study_digest: Of that study.
    """

    model: str = ""
    digest: str = ""
    study: str = ""
    task: str = ""
    licence: str = ""
    study_digest: str = ""

    def as_metadata(self) -> dict[str, str]:
        """Return what a safetensors file's header holds of it."""
        return {_KEY: json.dumps(asdict(self), sort_keys=True)}

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> "WeightsOrigin":
        """Return what a header says, in which any text may stand; nothing if it is not of ours."""
        try:
            said = json.loads(metadata.get(_KEY, ""))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            return cls(model=printable(str(metadata.get("model", "")), _MOST_NAME))
        names = {one.name for one in fields(cls)} - {"licence"}
        texts = {name: printable(str(said.get(name, "")), _MOST_NAME) for name in names}
        licence = printable(str(said.get("licence", "")), _MOST_LICENCE, lines=True)
        return cls(licence=licence, **texts)

    def words(self) -> str:
        """Return how a person calls the file."""
        if not self.model:
            return "weights that do not say where they come from"
        made_by = f" (task {self.task} of the study {self.study})" if self.study else ""
        return f"the model {self.model}{made_by}"


@dataclass(frozen=True, slots=True)
class Start:
    """What of a network starts from a file.

    Attributes:
        taken: Names in the network, each with the file's name for it.
        layers: The layers that are taken.
        left: Those that are drawn from the seed.
        share: Of the network's numbers that are taken, in (0, 1].
    """

    taken: Mapping[str, str]
    layers: tuple[str, ...]
    left: tuple[str, ...]
    share: float
    origin: WeightsOrigin

    def words(self) -> str:
        """Return which parts were taken, in a sentence."""
        count = len(self.layers) + len(self.left)
        drawn = f"; drawn anew: {_some(self.left)}" if self.left else ""
        return (
            f"{len(self.layers)} of {count} layers ({self.share:.0%} of the numbers) start from "
            f"{self.origin.words()}{drawn}"
        )


def match(
    state: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    origin: WeightsOrigin,
    task: str,
    heads: Collection[str],
) -> Start:
    """Return which layers of a network a file fits.

    Args:
        state: All numbers of the network; of a meta device too.
        saved: Those of the file.
        origin: Of the file. The head of another task is not taken, if it fits by chance.
        task: Of the network.
        heads: The names of the network's head.

    Raises:
        ModelError: No layer but the head fits.
    """
    known = {plain_name(name): name for name in saved}
    other_task = bool(origin.task) and origin.task != task
    parts: dict[str, list[str]] = {}
    for name in state:
        parts.setdefault(name.rpartition(".")[0] or name, []).append(name)
    taken: dict[str, str] = {}
    layers, left, body = [], [], 0
    for layer, names in parts.items():
        is_head = any(name in heads for name in names)
        found = {name: name if name in saved else known.get(plain_name(name)) for name in names}
        fits = all(theirs and saved[theirs].shape == state[n].shape for n, theirs in found.items())
        if not fits or (is_head and other_task):
            left.append(layer)
            continue
        layers.append(layer)
        taken.update({name: theirs for name, theirs in found.items() if theirs})
        body += not is_head and any(state[name].ndim > 1 for name in names)
    if not body:
        wanted = sum(any(state[n].ndim > 1 for n in names) for names in parts.values())
        msg = (
            f"the weights do not fit the network: of its {wanted} layers with weights none but a "
            f"head has the name and shape of one of {origin.words()}. Use the network, the widths "
            "(model.features) and the channels that it was trained with."
        )
        raise ModelError(msg)
    numbers = sum(tensor.numel() for tensor in state.values())
    share = sum(state[name].numel() for name in taken) / numbers
    return Start(taken, tuple(layers), tuple(left), share, origin)


def require_frozen(start: Start, frozen: Collection[str]) -> None:
    """Check that what training leaves as it is comes from the file.

    Raises:
        ModelError: Some of it would stay as it was drawn, for ever.
    """
    missing = [name for name in frozen if name not in start.taken]
    if missing:
        msg = (
            f"model.frozen keeps {_some(missing)} as it is, and the weights do not hold it: it "
            "would stay as it was drawn. Freeze only what starts from the weights: "
            f"{_some(start.layers)}."
        )
        raise ModelError(msg)


def plain_name(name: str) -> str:
    """Return a parameter's name without what networks of ours put around MONAI's."""
    stripped = True
    while stripped:
        stripped = False
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name, stripped = name.removeprefix(wrapper), True
    return name


def _some(names: Collection[str]) -> str:
    shown = [printable(name, _MOST_NAME) for name in list(names)[:_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
