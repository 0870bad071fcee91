"""Layers that cannot train under patient-level privacy, named by Opacus and replaced by its fixers.

Opacus is imported when a study asks for it. And numbers that are no weights: they stay where they
are, for what leaves a site of such a study is made of noised gradients alone.
"""

from importlib.util import find_spec

from torch import nn

from wardround.common.errors import StudyError, install_command
from wardround.common.models.lora import frozen_names
from wardround.common.runtime.printable import printable
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

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


def keep_constants_home(network: nn.Module, study: Study) -> None:
    """Take the whole numbers that no gradient changes out of what a private study's model is.

    A table of places, as a Swin Transformer has, is the same at each site, and need not travel; an
    update with it would be held back by the site's guard.

    Raises:
        StudyError: It keeps other numbers beside its weights, which would leave without noise.
    """
    if study.privacy.mode != "patient":
        return
    apart = set(frozen_names(network))  # these may leave: they are what each site was sent
    said = set(network.state_dict()) - apart
    for prefix, layer in list(network.named_modules()):
        for key, buffer in list(layer.named_buffers(recurse=False)):
            name = f"{prefix}.{key}" if prefix else key
            if name not in said:
                continue
            if not buffer.is_floating_point():
                layer.register_buffer(key, buffer, persistent=False)
            elif what_leaves(study).noise_added_by == "site":
                msg = (
                    f"{study.model.network} keeps {printable(name, 80)} beside its weights, on "
                    "which a private study puts no noise, so that no update could leave a site: "
                    "have its author register it with persistent=False, or choose another network."
                )
                raise StudyError(msg)
