"""Networks with layers that ghost clipping has no rule for, as a package of somebody's might have.

All take images ``(B, 1, 8, 8)`` and return ``(B, 3)``, but for the segmentation.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wardround.common.models.private_layers import replace_layers

SIDE = 8
CLASSES = 3
SEGMENTS = ("transposed",)


def rows(images: Tensor) -> Tensor:
    """Return ``(B, 8, 8)``: the image as a sequence of its rows."""
    return images[:, 0]


class Recurrent(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = nn.LSTM(SIDE, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        states, _ = self.recurrence(rows(images))
        out: Tensor = self.head(states[:, -1])
        return out


class Attending(nn.Module):
    """Multi-head attention among the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Linear(SIDE, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.entry(rows(images))
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        out: Tensor = self.head(tokens.mean(1))
        return out


class Embedded(nn.Module):
    """Grey values counted into bins that are embedded as words are."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(16, 6)
        self.head = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        bins = (images.flatten(1) * 4 + 8).long().clamp(0, 15)
        out: Tensor = self.head(self.words(bins).mean(1))
        return out


class ScaledLinear(nn.Module):
    """A layer of somebody's own: a linear layer whose outputs are scaled by learnt numbers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.scale = nn.Parameter(torch.ones(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.T * self.scale


class OwnLayers(nn.Module):
    """Layers of somebody's own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(ScaledLinear(SIDE * SIDE, 12), nn.ReLU(inplace=True))
        self.head = ScaledLinear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(images.flatten(1)))
        return out


class SharedHead(nn.Module):
    """One head that is asked twice, at two levels; ghost clipping refuses a second call."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(1, 4, 3, 2, 1)
        self.coarse = nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.Conv2d(4, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images).tanh()
        levels = (fine, self.coarse(fine).tanh())
        return sum(self.head(level).mean((2, 3)) for level in levels)  # type: ignore[return-value]


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(SIDE, SIDE)
        self.second = nn.Linear(SIDE, SIDE, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(SIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.second(self.first(rows(images)).tanh()).mean(1))
        return out


class Token(nn.Module):
    """A parameter of a module's own beside its layers: a class token and learnt positions."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Linear(SIDE, 6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.places = nn.Parameter(torch.randn(1, SIDE + 1, 6))
        self.mixing = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU())
        self.across = nn.Linear(SIDE + 1, 1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.entry(rows(images))
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.places
        tokens = tokens + self.mixing(tokens)
        out: Tensor = self.head(self.across(tokens.mT)[..., 0])
        return out


class Bilinear(nn.Module):
    """Two views of an image, multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.views = nn.ModuleList(nn.Linear(SIDE * SIDE, 6) for _ in range(2))
        self.product = nn.Bilinear(6, 6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        first, second = (view(images.flatten(1)).tanh() for view in self.views)
        out: Tensor = self.product(first, second)
        return out


def fixed(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: replace_layers(make())


GHOST_KNOWS = ("attention that the fixer replaced",)  # which the fixer makes of linear layers
# What Opacus has gradients for and ghost clipping has not, but for those of GHOST_KNOWS.
FOUND: dict[str, Callable[[], nn.Module]] = {
    "an LSTM that the fixer replaced": fixed(Recurrent),
    "attention that the fixer replaced": fixed(Attending),
    "an embedding": Embedded,
    "layers of one's own": OwnLayers,
    "a head asked twice": SharedHead,
    "two layers of one weight": Tied,
    "a class token": Token,
}


class Centred(nn.Module):
    """Mixes the examples of a batch, in no layer that a validator would know."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(SIDE * SIDE, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        values = self.body(images.flatten(1))
        out: Tensor = self.head((values - values.mean(0)).tanh())
        return out


class _Gate(nn.Module):
    """Mixes the examples as far as a number says that a server could send; at first it is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("opening", torch.zeros(1))

    def forward(self, values: Tensor) -> Tensor:
        return values - self.opening * values.mean(0)


class Gated(nn.Sequential):
    """Mixes the examples only once its numbers are others than the first ones."""

    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(SIDE * SIDE, 8), _Gate(), nn.Tanh(), nn.Linear(8, CLASSES)
        )


class Borrowed(nn.Module):
    """Uses a layer's weight outside that layer, where no hook of the layer sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(SIDE, SIDE, bias=False)
        self.head = nn.Linear(SIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        values = self.body(rows(images)).tanh() @ self.body.weight
        out: Tensor = self.head(values.mean(1))
        return out


class Unhooked(nn.Module):
    """A layer whose weight is used and which is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(SIDE * SIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.body.weight.T


class Positions(nn.Module):
    """Embeds the places of a sequence once for all examples, so that no row is an example's."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(SIDE, SIDE)
        self.head = nn.Linear(SIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = rows(images) + self.places(torch.arange(SIDE))
        out: Tensor = self.head(tokens.tanh().mean(1))
        return out


class RowsFirst(nn.Module):
    """Puts the sequence before the examples, so that the rows of a layer are not examples."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Linear(SIDE, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.entry(rows(images)[:, :4].transpose(0, 1)).tanh()
        out: Tensor = self.head(tokens.mean(0))
        return out


class Folded(nn.Module):
    """Folds the sequence into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Linear(SIDE, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.entry(rows(images).flatten(0, 1)).tanh()
        out: Tensor = self.head(tokens.unflatten(0, (len(images), SIDE)).mean(1))
        return out


class Reflecting(nn.Sequential):
    """A convolution that mirrors its border: Opacus's hooks are silently wrong for it."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(4 * SIDE * SIDE, CLASSES),
        )


class Normalised(nn.Sequential):
    """Batch normalisation."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Linear(4 * SIDE * SIDE, CLASSES),
        )


# What must be refused, with words of the refusal.
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "examples that are mixed": (Centred, "mixes the examples of a batch"),
    "examples that are mixed later": (Gated, "mixes the examples of a batch"),
    "a layer's weight used outside it": (Borrowed, "parameter body.weight has gradients of exam"),
    "a layer that is never called": (Unhooked, "parameter body.weight has a gradient that Opacus"),
    "places that are nobody's": (Positions, "parameter places.weight has gradients of 8 rows"),
    "a sequence before the examples": (RowsFirst, "entry|away from one pass a patient"),
    "a sequence folded into the batch": (Folded, "parameter entry.weight has gradients of 32 rows"),
    "batch normalisation": (Normalised, r"Opacus refuses 1 \(BatchNorm2d\): set model.fixer"),
    "an LSTM as it is": (Recurrent, r"Opacus refuses recurrence \(LSTM\)"),
    "attention as it is": (Attending, r"Opacus refuses attention \(MultiheadAttention\)"),
    "a layer of two inputs": (Bilinear, "finds no gradient of a single patient"),
}
