"""Reads an image off the first linear layer: exact for one patient, without any optimisation.

For a layer ``z = W x + b`` the gradient of every unit i is ``dW_i = dz_i x`` and ``db_i = dz_i``,
so ``dW_i / db_i = x`` (Phong et al. 2018, section 3; Geiping et al. 2020, proposition 3.1). In a
batch a unit of a ReLU layer that only one patient excites still holds that patient's image alone;
Fowl et al. 2022 make the server place such units on purpose, which an honest one does not.
"""

import torch
from torch import Tensor, nn

from wardround.simulations.privacy_attacks.observation import Gradients

_PASSED_OVER = (nn.Flatten, nn.Identity, nn.Dropout)


def first_linear_layer(network: nn.Module) -> str | None:
    """Return the name of the linear layer with a bias that sees the image itself, if there is one.

    Only the order in which a network lists its layers is looked at: a convolution or a
    normalisation before the linear layer ends the search.
    """
    for name, layer in network.named_modules():
        if any(True for _ in layer.children()) or isinstance(layer, _PASSED_OVER):
            continue
        has_bias = isinstance(layer, nn.Linear) and layer.bias is not None
        return name if has_bias else None
    return None


def read_image(gradients: Gradients, layer: str) -> Tensor:
    """Return the layer's input ``(values,)`` for a step of one patient.

    All units say the same; they are weighted by ``db_i``, which is the least-squares answer when
    the same noise lies on every number of ``dW``. Zeros if no unit was excited.

    Args:
        gradients: Of one step, by parameter name; the layer's weight is ``(units, values)``.
        layer: A linear layer with a bias.
    """
    weight, bias = gradients[f"{layer}.weight"].double(), gradients[f"{layer}.bias"].double()
    strength = float(bias @ bias)
    if strength == 0:
        return torch.zeros(weight.shape[1])
    return ((bias @ weight) / strength).float()


def read_units(gradients: Gradients, layer: str) -> Tensor:
    """Return what each excited unit says the input was, ``(units, values)``, for a small batch.

    Args:
        gradients: Of one step, by parameter name; the layer's weight is ``(units, values)``.
        layer: A linear layer with a bias.
    """
    weight, bias = gradients[f"{layer}.weight"].double(), gradients[f"{layer}.bias"].double()
    excited = bias != 0
    if not bool(excited.any()):
        return torch.zeros(1, weight.shape[1])
    return (weight[excited] / bias[excited, None]).float()
