"""Which field of the card or the data sheet answers which item of the checklists of the field.

CLAIM 2024: Tejani et al., Radiology: Artificial Intelligence 2024. TRIPOD+AI: Collins et al., BMJ
2024. FUTURE-AI: Lekadir et al., BMJ 2025. AI Act: Annex IV of Regulation (EU) 2024/1689. Subjects
are in our words. Numbers of items that are ``checked`` agree with summaries that others published;
the others are from memory.
"""

from dataclasses import dataclass
from functools import cache

CLAIM, TRIPOD = "CLAIM 2024", "TRIPOD+AI"
FUTURE, ACT = "FUTURE-AI", "AI Act Annex IV"


@dataclass(frozen=True, slots=True)
class ChecklistItem:
    """An item, and the fields that answer it.

    Attributes:
        fields: Keys of the fields; a person fills those that no tool knows.
        checked: Whether the number agrees with a summary that others published.
    """

    checklist: str
    number: str
    subject: str
    fields: tuple[str, ...]
    checked: bool = True


def _items(checklist: str, checked: bool, *rows: tuple[str, str, str]) -> tuple[ChecklistItem, ...]:
    return tuple(
        ChecklistItem(checklist, number, subject, tuple(keys.split()), checked)
        for number, subject, keys in rows
    )


ITEMS: tuple[ChecklistItem, ...] = (
    *_items(
        TRIPOD,
        True,
        ("1", "title: what is predicted, for whom, and how", "name task"),
        ("3a", "healthcare context and reason", "intended_use"),
        ("3b", "target population and intended users", "intended_use users"),
        ("3c", "known health inequalities", "inequalities"),
        ("4", "objectives", "description"),
        ("5a", "sources of the data", "source sites"),
        ("5b", "dates of the data", "collection_dates"),
        ("6a", "setting and number of centres", "sites setting"),
        ("6b", "who was eligible", "eligibility"),
        ("6c", "treatments received", "setting"),
    ),
    *_items(
        TRIPOD,
        False,
        ("7", "how data were prepared", "preprocessing"),
        ("8", "the outcome and how it was assessed", "classes reference_standard"),
        ("9", "predictors", "input"),
        ("10", "sample size", "counts"),
        ("11", "missing data", "missing"),
        ("12", "analytical methods", "training strategy rounds partitions"),
        ("13", "class imbalance", "imbalance"),
        ("14", "fairness", "by_site inequalities"),
        ("15", "the model's output", "output"),
        ("16", "training compared with evaluation data", "partitions by_site"),
        ("17", "ethical approval", "ethics"),
        ("18", "funding, conflicts, protocol, registration, data and code", "people code licence"),
        ("19", "involvement of patients and public", "public_involvement"),
        ("20", "flow and characteristics of participants", "counts missing"),
        ("21", "numbers in model development", "counts trained_on"),
        ("22", "specification of the model", "network weights"),
        ("23", "performance with intervals, and by group", "measured by_site"),
        ("24", "model updating", "changes"),
        ("25", "interpretation", "verdict"),
        ("26", "limitations", "limits"),
        ("27", "use in current care", "oversight intended_use"),
    ),
    *_items(
        ACT,
        True,
        ("1", "general description of the system", "name intended_use users description"),
        ("2(a)", "methods and steps of development, pre-trained parts", "training start"),
        ("2(b)", "design and its main choices", "network strategy"),
        ("2(c)", "architecture and computing resources", "network environment code"),
        ("2(d)", "data: origin, scope, selection, labelling", "source counts reference_standard"),
        ("2(e)", "human oversight", "oversight"),
        ("2(f)", "changes planned in advance", "changes"),
        ("2(g)", "validation and testing, metrics", "measured partitions by_site"),
        ("2(h)", "cyber security", "lineage privacy"),
        ("3", "monitoring, capabilities and limits", "limits verdict output"),
        ("4", "why these metrics are appropriate", "metric_choice"),
        ("5", "risk management", "risk_management"),
    ),
    *_items(
        ACT,
        False,
        ("6", "changes through the life cycle", "changes lineage"),
        ("7", "harmonised standards", "conformity"),
        ("8", "declaration of conformity", "conformity"),
        ("9", "monitoring after the market", "monitoring"),
    ),
    *_items(
        CLAIM,
        False,
        ("1", "title names AI and the modality", "name task input"),
        ("3", "background and intended use", "intended_use"),
        ("4", "objectives", "description"),
        ("5", "prospective or retrospective", "setting"),
        ("7", "sources of the data", "source sites"),
        ("8", "inclusion and exclusion", "eligibility"),
        ("9", "preprocessing", "preprocessing"),
        ("11", "de-identification", "deidentification"),
        ("12", "missing data", "missing"),
        ("13", "acquisition protocol", "acquisition"),
        ("14", "reference standard", "reference_standard"),
        ("16", "who annotated", "annotators"),
        ("19", "assignment to partitions", "partitions"),
        ("20", "level at which partitions are disjoint", "partitions"),
        ("21", "sample size", "counts"),
        ("22", "the model, its input and output", "network input output"),
        ("23", "software and hardware", "environment code"),
        ("24", "initial parameters", "start"),
        ("25", "training", "training strategy rounds"),
        ("26", "how the final model was chosen", "rounds"),
        ("28", "metrics", "measured metric_choice"),
        ("29", "uncertainty", "measured"),
        ("32", "internal and external testing", "external"),
        ("35", "flow of participants", "counts"),
        ("37", "performance by partition", "measured by_site"),
        ("40", "limitations", "limits"),
        ("43", "where protocol, code and model are", "code weights"),
        ("44", "funding", "people"),
    ),
    *_items(
        FUTURE,
        False,
        ("Fairness 1-3", "sources of bias, attributes, evaluated fairness", "by_site inequalities"),
        ("Universality 1", "intended settings", "intended_use setting"),
        ("Universality 3", "external data", "external"),
        ("Universality 4", "validity at each site", "by_site verdict"),
        ("Traceability 1", "risk management", "risk_management"),
        ("Traceability 2", "documentation", "source weights lineage"),
        ("Traceability 4-5", "audits and logs", "lineage monitoring"),
        ("Usability 1-2", "users and oversight", "users oversight"),
        ("Robustness 1-3", "variation of data, tested", "limits external"),
        ("Explainability 1-2", "explanations, and whether they hold", "explanations"),
        ("General 2", "data protection", "privacy ethics deidentification"),
        ("General 5-7", "regulation, ethics, society", "conformity ethics public_involvement"),
    ),
)


@cache
def answered_by(key: str) -> tuple[str, ...]:
    """Return the items that a field answers, e.g. "TRIPOD+AI 7"."""
    return tuple(f"{item.checklist} {item.number}" for item in ITEMS if key in item.fields)
