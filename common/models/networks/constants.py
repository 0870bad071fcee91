"""The constants of a network in a study with privacy for patients: they stay where they are.

What leaves such a site is made of noised gradients alone, so that an update with anything else is
held back by the site's guard. A table of places, as a Swin Transformer has, is the same at each
site, and need not travel.
"""

from torch import nn

from wardround.common.errors import StudyError
from wardround.common.models.lora import frozen_names
from wardround.common.runtime.printable import printable
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study


def keep_constants_home(network: nn.Module, study: Study) -> None:
    """Take the whole numbers that no gradient changes out of what a private study's model is.

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
