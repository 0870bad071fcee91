"""Why a site refuses: the one word that leaves a hospital, and what it stands for.

The word is all that a server is told. The sentence is not sent: server and site both know it.
"""

from collections.abc import Mapping

REFUSAL_WORDS: Mapping[str, str] = {
    "data": "the site cannot use its data for the study; its own log says why",
    "study": "the site cannot read the study",
    "device": "the site cannot use its device; its own log says why",
    "training": "the training failed; the site's own log says why",
    "input": "the site cannot use what it was sent",
    "weights": "the site does not have the weights that the study starts from",
    "policy": "a rule of the hospital's policy does not allow it",
    "parent": "the model that the study goes on from is none that the site was sent in that study",
    "packages": "the study names a package that the hospital's policy does not list with that "
    "hash, or that is not installed there so",
    "approval": "nobody at the hospital has approved the study, or no more of its rounds",
    "rejected": "the hospital has rejected the study",
    "budget": "it would spend more of the patients' privacy than the hospital's policy allows",
    "ledger": "the site's record of the privacy spent is damaged, cannot be written, or is not the "
    "one that this server has seen; nothing is trained until it is put right",
    "time": "the training took longer than the hospital's policy allows, and was stopped",
    "evaluations": "it has measured this already, or as many models as the hospital allows: one "
    "more would tell more of single patients",
    "canaries": "it has answered as many canary rounds of this study as the hospital allows",
    "guard": "the answer was not exactly what the study implies, and stayed at the site",
    "masking": "the site does not mask, or unmask, what it was asked to: its audit log names why",
    "audit": "the site cannot write its log of what leaves",
    "disk": "the site's disk is full, or cannot be written; it takes part again when there is room",
    "internal": "the site failed; its own log says why",
    "failed": "the site could not do it; in a study that protects its patients it does not say "
    "more, its own log does",
}
# Under patient-level privacy nothing is said whose cause may be a patient: whoever knows all the
# others would learn of that one exactly. These words depend on no patient's data; for every other
# one the closed word stands.
SAID_UNDER_PRIVACY = frozenset(
    {
        "policy",
        "packages",
        "approval",
        "rejected",
        "evaluations",
        "canaries",
        "budget",
        "ledger",
        "study",
        "weights",
        "parent",
        "audit",
    }
)
CLOSED = "failed"
LACKS_WEIGHTS = "weights"


def in_words(code: str) -> str:
    """Return a refusal's word with what it stands for; one that is not known stands alone."""
    words = REFUSAL_WORDS.get(code)
    return code if words is None else f"{code}: {words}"
