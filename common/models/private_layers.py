"""Layers that cannot train under patient-level privacy, named by Opacus and replaced by its fixers.

Opacus is imported when a study asks for it.
"""

from importlib.util import find_spec

from torch import nn

from wardround.common.errors import StudyError, install_command

_SHOWN = 4


def require_opacus(what: str) -> None:
    """Refuse a study that needs Opacus where it is not installed.

    Raises:
        StudyError: It is not.
    """
    if find_spec("opacus") is None:
        msg = f"{what} needs Opacus, which is not installed here: {install_command('opacus')}."
        raise StudyError(msg)


def replace_layers(network: nn.Module) -> nn.Module:
    """Return the network with the layers that do not train privately replaced, as Opacus does it.

    Batch normalisation becomes group normalisation of at most 32 groups (Wu and He 2018); LSTM, GRU
    and multi-head attention become layers of the same arithmetic whose gradients are known for each
    example. What replaces a layer with weights of its own starts from them.

    Raises:
        StudyError: Opacus is not installed, nothing is replaced, or something cannot be.
    """
    require_opacus("model.fixer = 'opacus'")
    from opacus.validators import ModuleValidator

    before = [type(layer) for layer in network.modules()]
    try:
        fixed: nn.Module = ModuleValidator.fix(network)
    except (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        msg = (
            f"model.fixer = 'opacus' cannot replace a layer of {type(network).__name__} "
            f"({type(error).__name__}): remove it, and choose model.normalisation = 'group' where "
            "the network has that choice."
        )
        raise StudyError(msg) from error
    if [type(layer) for layer in fixed.modules()] == before:
        msg = (
            f"model.fixer = 'opacus' replaces nothing in {type(network).__name__}, which has no "
            "layer that it would: remove it."
        )
        raise StudyError(msg)
    return fixed


def refused_layers(network: nn.Module) -> str:
    """Return the layers that Opacus's validator refuses, by name and type; "" if it passes."""
    from opacus.validators import ModuleValidator

    refused = [
        f"{name or 'the network itself'} ({type(layer).__name__})"
        for name, layer in network.named_modules()
        if any(True for _ in layer.parameters(recurse=False)) or type(layer) in _with_rules()
        if type(layer) in ModuleValidator.VALIDATORS
        and ModuleValidator.VALIDATORS[type(layer)](layer)
    ]
    more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    return ", ".join(refused[:_SHOWN]) + more


def _with_rules() -> frozenset[type]:
    from opacus.validators import ModuleValidator

    return frozenset(ModuleValidator.VALIDATORS)
