"""The study file that a researcher starts from, for each task, with and without patient privacy."""

from collections.abc import Iterator

from wardround.common.study.study import Study

# What the policy that 'wardround site join' writes says of privacy; a test holds it against that.
STARTING_EPSILON, STARTING_DELTA = 8.0, 1e-5

_HEAD = """\
# What server and hospitals agree on. 'wardround study explain' says it in words,
# 'wardround study schema' lists every key.

[study]
name = "my-study"
task = "{task}"{others}
description = "One sentence a hospital's data-protection officer understands."

[data]
channels = ["image"]             # one column of the manifest each
dimensions = 2                   # 2 or 3
{classes}
size = [64, 64]                  # every image is brought to this size
intensity = "xray"               # xray, ct, mr, dermoscopy, ultrasound, histology, none
augmentation = "light"
{outcome}
[model]
network = "{network}"
normalisation = "group"
"""

_PLAIN = """
[training]
optimiser = "adam"
learning_rate = 3e-4
batch_size = 16
local_steps = 10                 # a round; with fewer than 5 the training swings
"""

_PRIVATE = """
[training]
optimiser = "adam"
learning_rate = 1e-3
local_steps = 10                 # a round

[privacy]                        # 'wardround study privacy' says what other budgets would cost
mode = "patient"
epsilon = 2.0                    # of the 8 that a site starts with, for all studies and for ever
delta = 1e-5                     # less than 1 / (10 x patients of the smallest site)
sampling_rate = 0.1              # probability that a patient takes part in a step
expected_patients = 20           # of a step: about sampling_rate x patients of a site
"""

_TAIL = """
[federation]
strategy = "fedavg"
rounds = 10
minimum_sites = 2                # the quorum: so many sites must be ready, and answer each round
seed = 0

[evaluation]
metric = "{metric}"
{keep}
[simulation]                     # a hospital ignores this part, and so does the digest
data = "folder"
split = "iid"
sites = 4

[simulation.options]
manifest = "manifest.csv"
"""

_NUMBER = """
[data.outcome]
name = "age"
unit = "years"
range = [0, 110]                 # a label outside is refused, an estimate outside cut to it
mean = 60                        # about what the labels have; no hospital's own values
scale = 15                       # their standard deviation, about
"""

_TIME = """
[data.outcome]
name = "death"
unit = "days"                    # of the column time; event is 1, or 0 where follow-up ended
times = [182, 365, 730, 1095, 1825] # the hazard is constant in between; the last is the horizon
"""

_OF_TASKS = {
    "classification": {
        "classes": 'classes = ["normal", "abnormal"]',
        "outcome": "",
        "network": "small-cnn",
        "metric": "auroc",
    },
    "detection": {
        "classes": 'classes = ["nodule"]             # what is looked for; no background',
        "outcome": "",
        "network": "retinanet",
        "metric": "map50",
    },
    "segmentation": {
        "classes": 'classes = ["background", "lesion"] # the background comes first',
        "outcome": "",
        "network": "unet",
        "metric": "dice",
    },
    "regression": {
        "classes": "# The column label of the manifest holds the number, see [data.outcome].",
        "outcome": _NUMBER,
        "network": "small-cnn",
        "metric": "mae",
    },
    "survival": {
        "classes": "# The columns time and event of the manifest hold the outcome, see below.",
        "outcome": _TIME,
        "network": "small-cnn",
        "metric": "c-index",
    },
    "pretraining": {
        "classes": "# no classes: no label is read, and the manifest needs no column label",
        "outcome": "",
        "network": "small-cnn",
        "metric": "pretraining-error",
    },
}
TEMPLATE_TASKS = tuple(_OF_TASKS)


def study_template(task: str, private: bool) -> str:
    """Return a study file with comments.

    Args:
        task: One of TEMPLATE_TASKS.
        private: Whether it promises patients privacy, as the policy that a site starts with asks.
    """
    keep = 'keep = "last"                    # "best" would choose by patients\n' if private else ""
    middle = _PRIVATE if private else _PLAIN
    others = ", ".join(f'"{one}"' for one in TEMPLATE_TASKS if one != task)
    return (_HEAD + middle + _TAIL).format(
        task=task, keep=keep, others=f" # or {others}", **_OF_TASKS[task]
    )


def refused_at_first(study: Study) -> Iterator[str]:
    """Yield why a site whose policy is as it was first written refuses a study.

    A researcher learns it before hospitals are asked. What a study spends is not worked out here.
    """
    privacy = study.privacy
    if study.statistics.ask:
        yield (
            "the study asks for statistics, and the policy that a site starts with tells none: "
            "agree with the hospitals on statistics = 'yes'."
        )
    if privacy.mode != "patient":
        yield (
            f"privacy.mode is {privacy.mode!r}, and the policy that a site starts with requires "
            "'patient': agree with the hospitals on privacy_required = false, or begin with "
            "'wardround study new --private'."
        )
        return
    if study.statistics.ask:
        return  # it spends what it says, and trains nothing
    if privacy.noise_multiplier is None and (privacy.epsilon or STARTING_EPSILON) >= (
        STARTING_EPSILON
    ):
        yield (
            f"one run spends epsilon {privacy.epsilon or STARTING_EPSILON:g}, and the policy that "
            f"a site starts with allows {STARTING_EPSILON:g} for all studies and for ever: nothing "
            "is left for another. Set privacy.epsilon lower."
        )
    if privacy.delta > STARTING_DELTA:
        yield (
            f"privacy.delta is {privacy.delta:g}, and the policy that a site starts with allows "
            f"{STARTING_DELTA:g}: set it to that or less."
        )
