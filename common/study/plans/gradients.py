"""How a study's gradients of single patients are found: by its own word, or by the table."""

from wardround.common.files.packages.references import reference_of
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.sections.model import ModelSection
from wardround.common.study.study import Study

OPACUS = "opacus"  # the method of a network that is verified where it is built
_WORDS = {
    "ghost": "ghost clipping: one pass for all patients",
    "vmap": "vectorised over the patients (torch.func)",
    "loop": "one pass a patient",
}


def chooses_batch(model: ModelSection) -> bool:
    """Return whether a network that is known here is built with normalisation over the batch."""
    entry = PRIVATE_NETWORKS.get(model.network)
    if entry is None:
        return False
    default_is_batch = "default" not in entry.normalisations
    return model.normalisation == "batch" or (model.normalisation == "default" and default_is_batch)


def mixes_batch(model: ModelSection) -> bool:
    """Return whether a network that is known here normalises over the batch as it is trained."""
    return chooses_batch(model) and model.fixer == "none"


def gradient_method(study: Study) -> str:
    """Return how a study's gradients of single patients are found.

    Returns:
        A name of ``client.privacy.gradients.METHODS``; or :data:`OPACUS` for a network that this
        table does not know, of which the site finds out which of Opacus's ways is exact.

    Raises:
        KeyError: The table does not know the network, and the study leaves the choice to it.
    """
    asked, name = study.privacy.gradients, study.model.network
    # A package's loss may look at a whole batch: it is given one patient at a time.
    if asked == "loop" or reference_of(study.loss) is not None:
        return "loop"
    if asked == "auto":
        entry = PRIVATE_NETWORKS[name]
        is_beyond_ghost = entry.reuses_activation and study.model.activation == "prelu"
        return "loop" if is_beyond_ghost else entry.method_for(study.data.dimensions)
    way = PRIVATE_NETWORKS[name].opacus if name in PRIVATE_NETWORKS else "verified"
    return OPACUS if way == "verified" else f"opacus-{way}"


def method_words(study: Study) -> str:
    """Return a clause that says how the gradients of single patients are found, and who chose it.

    Raises:
        KeyError: See :func:`gradient_method`.
    """
    method = gradient_method(study)
    words = _WORDS.get(method, "Opacus")
    if method.startswith(f"{OPACUS}-"):
        words = f"{words} ({method.removeprefix('opacus-')})"
    chosen = study.privacy.gradients
    by = "chosen for this network" if chosen == "auto" else f"privacy.gradients = {chosen!r}"
    return f"{words}, {by}"
