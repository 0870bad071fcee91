"""What a study may say in ``[data.labels]``, and where classes may be missing at a site."""

from collections import Counter
from collections.abc import Iterator

from wardround.common.errors import known_names
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.study import Study

# Losses in which classes that a site has not annotated can be taken together with the background,
# for their softmax sums to it; and those in which a label can be left out by itself.
_MARGINAL = ("cross-entropy", "focal", "dice", "dice-ce", "generalised-dice", "mse")
_BY_LABEL = ("bce", "focal", "mse")


def label_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of labels that the study breaks."""
    labels, classes = study.data.labels, study.data.classes
    named = {"codes": tuple(labels.codes), "words": tuple(dict.fromkeys(labels.words.values()))}
    for key, names in named.items():
        yield from (
            f"data.labels.{key}: {known_names('class', name, classes)}"
            for name in names
            if name not in classes
        )
    twice = [code for code, times in Counter(labels.codes.values()).items() if times > 1]
    if twice:
        yield (
            f"data.labels.codes gives {', '.join(twice)} to two classes: a code stands for one "
            "class; give each its own."
        )
    for word, name in labels.words.items():
        if word in classes and word != name:
            yield (
                f"data.labels.words says that {word} means {name}, but {word} is a class itself: "
                "remove the word."
            )
    if labels.partial:
        yield from _partial_fits(study)


def _partial_fits(study: Study) -> Iterator[str]:
    data = study.data
    if not study.task.dense and not data.multi_label:
        yield (
            "data.labels.partial = true is for segmentation and for data.multi_label: where each "
            "image is of exactly one class, a site cannot lack one without knowing it; remove it."
        )
        return
    if data.multi_label and study.privacy.mode == "patient":
        yield (
            "data.labels.partial = true with data.multi_label has no noised measurement: the "
            "vector of a patient has a place for each label; set privacy.mode = 'none', or remove "
            "it."
        )
    fitting = _MARGINAL if study.task.dense else _BY_LABEL
    if study.loss not in fitting:
        yield (
            f"training.loss = {study.loss!r} has no form for classes that a site has not "
            f"annotated, which data.labels.partial allows: choose one of {', '.join(fitting)}."
        )
    try:
        plan = plan_from(study.federation, adapted=study.model.adapter_rank is not None)
    except KeyError:
        return  # an unknown strategy, said elsewhere
    if plan.aggregation == "fair-mean":
        yield (
            "federation.aggregation = 'fair-mean' weighs sites by their loss, and the losses of "
            "sites that have annotated other classes (data.labels.partial) are not comparable: "
            "choose 'weighted-mean' or 'mean'."
        )
