"""What a study that goes on from another one asks of a hospital, in sentences."""

from collections.abc import Iterator

from wardround.common.study.study import Study


def continuing_words(study: Study) -> Iterator[str]:
    """Yield what a study says of its parent, and of old and new rows."""
    held = study.continual
    if held is None:
        return
    if held.parent is not None:
        yield (
            f"to go on from the model of the study {held.parent}, whose numbers have the SHA-256 "
            f"{held.model}; if your hospital took part in that study, the model is held against "
            "those that it was sent there, and another one is refused;"
        )
    yield (
        f"to take rows with {held.wave} in the column wave of its manifest for new"
        + (", those with less, or nothing, for old" if held.wave > 1 else ", as those with nothing")
        + ", and to leave out those with more;"
    )
    if held.wave == 1:
        return
    yield {
        "none": "to train on new rows alone;",
        "replay": _replayed(study),
        "ewc": (
            "to train on new rows alone, held by how much each weight mattered for its old rows, "
            "which it finds out here and tells nobody (EWC);"
        ),
        "lwf": "to train on new rows alone, with answers near those of the parent's model (LwF);",
    }[held.method]
    if study.privacy.mode == "patient":
        yield (
            "to add what this study spends on its patients to what the parent, and every other "
            "study, has spent on them in its privacy ledger;"
        )


def _replayed(study: Study) -> str:
    held = study.continual
    share = 0.0 if held is None else held.replayed
    if study.privacy.mode == "patient":
        return "to train on old rows as on new ones, each patient drawn with the same probability;"
    return (
        f"to train on its own old rows again beside new ones, {100 * share:.3g} % of each batch; "
        "they stay where they are;"
    )
