"""What each command prints with ``--json``: the table of which ``json_tables.py`` makes the page.

A command's keys are the fields of a class (``of``), or are listed here beside the place in the code
that makes them (``made_in``), against which a test holds them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Output:
    """What a command prints.

    Attributes:
        form: One object, a list of objects, or an object a line.
        of: The class whose fields are the keys, as "package.module:Class".
        keys: Keys beside these, with what they hold.
        parts: Of these keys: the class of what they hold.
        without: Fields of the class that are not printed.
        made_in: The function that puts the keys together, as "file.py:function".
    """

    form: str = "one object"
    of: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    made_in: str = ""


_LIST, _LINES = "a list of objects", "an object a line"
_PLACED = "wardround.server.checkpoints.promotions"
MESSAGES = "wardround.server.operators.messages"
_LEAVING = Output(
    _LIST,
    keys={
        "study": "Its digest.",
        "without": "What left: site or patients.",
        "request": "The SHA-256 of the signed request.",
        "state": "noted, how the repeat stands, or not reached.",
        "repeat": "The digest of the study that repeats the rounds; empty before there is one.",
        "certificate": "Its file; null before there is one.",
    },
    made_in="client/cli/withdrawal.py:_as_json",
)
_STATE = Output(of=f"{MESSAGES}:RunSummary")
_PEER = {
    "site": "Whose key it is.",
    "own": "Whether it is of the site whose list this is.",
    "key": "Its Ed25519 public key, 64 hexadecimal digits.",
    "words": "What is compared by telephone.",
}
OUTPUTS: dict[str, Output] = {
    "simulate": Output(
        keys={
            "run": "The run folder.",
            "report": "The page.",
            "verdict": "The first sentence of the report.",
            "details": "The sentences after it.",
            "interval": "What the margins are.",
            "metric": "In which everything is told.",
            "sites": "A hospital each: site, alone, federated, pooled, gain, margin, "
            "interval_level, outcome, test_patients, patients_needed.",
            "mean": "The same over the hospitals.",
            "worth_joining": "A hospital each: yes, no or cannot be told, and why.",
            "all_sites": "Each model on all test patients.",
            "best_round": "Of the kept model.",
            "seconds": "What took how long.",
            "notes": "What the reader should know.",
            "missed": "In how many rounds a hospital did not train, by its name.",
        },
        made_in="simulations/cli/summary.py:_as_json",
    ),
    "split": Output(_LIST, of="wardround.simulations.run_files.folder:SplitRow"),
    "sweep": Output(
        keys={
            "sweep": "The sweep's folder.",
            "report": "The page.",
            "metric": "By which trials are compared, on validation patients.",
            "trials": "A trial each.",
            "best": "Its number, and what it changes in the study; null if no trial has ended.",
            "next": "The command that comes next.",
        },
        parts={"trials": "wardround.simulations.sweeps.folder:Trial"},
        made_in="simulations/cli/sweep.py:_as_json",
    ),
    "evaluate": Output(
        of="wardround.simulations.run_files.evaluation:EvaluationFacts",
        without=("command",),
        keys={
            "evaluation": "The evaluation's folder.",
            "report": "The page.",
            "verdict": "Its first sentence.",
            "subgroups": "A group of patients each, if the study names groups.",
        },
        made_in="simulations/cli/finished/evaluate.py:_as_json",
    ),
    "attack": Output(of="wardround.simulations.run_files.attack_findings:Findings"),
    "stress": Output(
        keys={
            "corruptions": "A model and corruption each.",
            "attacks": "An attack each.",
        },
        parts={
            "corruptions": "wardround.simulations.run_files.stress:CorruptionRow",
            "attacks": "wardround.simulations.run_files.stress:AttackRow",
        },
        made_in="simulations/cli/finished/stress.py:run_stress",
    ),
    "explain-predictions": Output(
        keys={
            "method": "The map's method.",
            "report": "The page.",
            "rows": "A case each.",
            "sites": "The means of each site.",
        },
        parts={"rows": "wardround.simulations.run_files.explanations:ExplanationRow"},
        made_in="simulations/cli/finished/explain.py:run_explanation",
    ),
    "predict": Output(
        keys={
            "out": "The folder of results.",
            "predicted": "How many inputs have a result.",
            "skipped": "How many had one already.",
            "calibration": "What is known of the model's probabilities, a sentence a model.",
            "lacking": "How many of them lack an optional image or value.",
            "failed": "What has none: input and reason.",
        },
        made_in="client/cli/clinic/predict.py:_say",
    ),
    "study check": Output(
        keys={
            "name": "The study's.",
            "digest": "What a hospital approves.",
            "notes": "What a site's first policy would not allow.",
        },
        made_in="src/wardround/commands/study.py:check",
    ),
    "study explain": Output(
        keys={
            "name": "The study's.",
            "digest": "What a hospital approves.",
            "text": "The page, with its newlines.",
        },
        made_in="src/wardround/commands/study.py:explain",
    ),
    "study privacy": Output(
        of="wardround.common.study.plans.patient_privacy:PrivacyPlan",
        keys={
            "epsilon": "What a training patient's promise is, at the plan's delta.",
            "parameters": "Numbers that are trained.",
            "patients": "The sizes of a site in the table.",
            "evaluations": "What measuring costs, for validation and for test patients.",
            "trade_offs": "Other budgets, and the noise they would take.",
            "observers": "What all rounds tell whom, with local noise and with distributed.",
        },
        made_in="src/wardround/commands/study.py:privacy",
    ),
    "study continue": Output(
        keys={
            "study": "The name of the study that goes on.",
            "digest": "What a hospital approves.",
            "parent": "The digest of the study that it goes on from.",
            "model": "The digest of that one's model.",
            "wave": "Of the rows that are new.",
            "file": "The study file.",
        },
        made_in="src/wardround/commands/continue_study.py:_as_json",
    ),
    "study canary": Output(
        of="wardround.server.cli.canary:CanaryAnswer",
        parts={"report": f"{MESSAGES}:CanaryReport"},
    ),
    "bundle-wheels": Output(
        keys={
            "folder": "The bundle's.",
            "wheels": "How many.",
            "bytes": "Of all of them.",
            "sha256sums": "The digest of SHA256SUMS, to be told by another way.",
        },
        made_in="src/wardround/commands/bundle_wheels.py:bundle_wheels",
    ),
    "study submit": Output(of=f"{MESSAGES}:Submitted"),
    "site serve": Output(
        keys={
            "serving": "Whether a process serves.",
            "states": "How many studies are in which state.",
            "reasons": "Why some are not done: state, reason, studies.",
            "last_asked": "When the archive was last asked, if it was.",
        },
        made_in="client/cli/clinic/serve.py:_print_status",
    ),
    "site status": Output(
        of="wardround.client.daemon.status:DaemonStatus",
        keys={
            "privacy": "What is spent and left, a part of a data set each.",
            "pending": "Digests of studies that wait for a decision.",
            "faults": "What the checks at hand found wrong.",
        },
        parts={
            "privacy": "wardround.client.privacy.ledger.remaining:PrivacyLeft",
            "faults": "wardround.client.doctor.check:Check",
        },
        made_in="client/cli/daemon.py:status",
    ),
    "site pending": Output(
        _LIST,
        keys={
            "digest": "Of the study.",
            "name": "Its name.",
            "since": "When it was asked for.",
        },
        made_in="client/cli/daemon.py:pending",
    ),
    "site worth": Output(of="wardround.client.clinic.joining:Worth"),
    "site withdraw": _LEAVING,
    "site forget-patients": _LEAVING,
    "site doctor": Output(_LIST, of="wardround.client.doctor.check:Check"),
    "site import": Output(
        keys={
            "found": "Examinations that the rules fit.",
            "already": "Of these: imported before.",
            "imported": "Imported now.",
            "patients": "Of how many patients.",
            "looked_at_for_text": "Images searched for burned-in text.",
            "masked": "Images in which some was covered.",
            "studies_left_out": "How many, a reason each.",
            "series_left_out": "How many, a reason each.",
            "files_left_out": "How many, a reason each.",
        },
        made_in="client/clinic/onboarding/run.py:counts",
    ),
    "site pacs test": Output(
        keys={
            "archive": "Its name, with the address.",
            "answers": "True; an archive that is away ends the command with 3 and a sentence.",
        },
        made_in="client/cli/clinic/pacs.py:ask_archive",
    ),
    "site review queue": Output(
        keys={
            "queue": "Its name.",
            "cases": "How many.",
            "list": "The reader's list.",
            "notes": "What was left out, and how probabilities were calibrated.",
        },
        made_in="client/cli/clinic/review.py:make",
    ),
    "site review take": Output(
        keys={
            "taken": "Corrections that were written down.",
            "changed": "Of these, that say something else than what counted before.",
            "refused": "A sentence for each that was not taken.",
            "not_trained_on": "Of those taken, of validation and test patients.",
        },
        made_in="client/cli/clinic/review.py:_say",
    ),
    "site review report": Output(
        keys={
            "queue": "Its name.",
            "by": "How cases were chosen.",
            "arms": "`chosen` and `random`: cases, read, checked (held against something), wrong.",
            "verdict": "better, worse or no gain: were more of the chosen cases wrong? Null where "
            "that cannot be said.",
            "unchecked": "Cases read that had nothing to be held against.",
            "trial": "With --train: metric, chosen, drawn, cases, verdict; else null.",
            "readers": "Each pair of readers: first, second, and kappa or Dice.",
            "lines": "The report in sentences.",
        },
        made_in="client/clinic/review/report.py:content",
    ),
    "site monitor reference": Output(
        keys={
            "model": "Its name.",
            "digest": "Of the model folder.",
            "cases": "Images in the reference.",
            "labelled": "How many of them have a label.",
            "every": "day, week or month.",
            "failed": "What could not be used: input and reason.",
        },
        made_in="client/cli/clinic/monitor.py:set_reference",
    ),
    "site monitor add": Output(
        keys={
            "period": "To which the images were counted.",
            "added": "How many are new.",
            "known": "How many were counted before.",
            "failed": "What could not be used: input and reason.",
            "looked_at": "The periods that were over, each as in `site monitor status`.",
        },
        made_in="client/cli/clinic/monitor.py:add",
    ),
    "site monitor close": Output(
        keys={"looked_at": "The periods that were looked at, each as in `site monitor status`."},
        made_in="client/cli/clinic/monitor.py:close",
    ),
    "site monitor labels": Output(
        keys={
            "labelled": "Labels of images that were added.",
            "unknown": "Rows of images that were not.",
            "found": "What the tests found, as in `site monitor status`.",
            "reference": "Accuracy, AUROC, loss and calibration error there; null without labels.",
            "new": "The same of the images that these labels are of.",
        },
        made_in="client/cli/clinic/monitor.py:add_labels",
    ),
    "site monitor acknowledge": Output(
        keys={
            "closed": "How many alarms.",
            "reference": "keep, extend or renew.",
            "reference_cases": "Images that periods are held against now.",
            "lacking": "Images that a renewed reference lacks: until then periods are learnt.",
        },
        made_in="client/cli/clinic/monitor.py:acknowledge",
    ),
    "site monitor status": Output(
        keys={
            "model": "Its name.",
            "digest": "Of the model folder.",
            "every": "day, week or month.",
            "reference_cases": "Images that periods are held against now.",
            "lacking": "Images that a renewed reference lacks; 0 if none.",
            "alarms": "Those that nobody has closed: period and words.",
            "waiting": "Images of each period that was not looked at yet.",
            "entries": "A line each: kind (period, labels, closed), verdict (alarm, notice, "
            "quiet, too few, learning), alarms and notices in words, and findings: family, name, "
            "scanner, p (after Holm), before, after, scale, since.",
        },
        made_in="client/cli/clinic/monitor.py:status",
    ),
    "site explain": Output(
        of="wardround.client.doctor.policy:PolicyReport",
        keys={
            "study": "Its name.",
            "digest": "What would be approved.",
            "allowed": "Whether the site would take part; the exit code is then 0.",
            "terms": "What an approval would be for, a line each.",
        },
        parts={"verdicts": "wardround.client.policy.rules:Verdict"},
        made_in="client/cli/site.py:_as_json",
    ),
    "site policy package": Output(
        keys={
            "package": "Its name.",
            "version": "As its metadata says.",
            "sha256": "Over names and contents of its files, as policy and study write it.",
            "registers": "What a study may name of it, as package:name, by kind.",
            "files": "What is hashed, below the folder that it is installed in.",
        },
        made_in="client/cli/site.py:package",
    ),
    "site policy check": Output(of="wardround.client.policy.policy:Policy"),
    "site check": Output(of="wardround.client.clinic.onboarding.data_check.findings:DataReport"),
    "site audit show": Output(_LIST, of="wardround.common.security.audit_verification:Entry"),
    "site audit verify": Output(
        keys={
            "entries": "How many, each as it was written and signed.",
            "head": "The hash of the last one.",
            "countersigned": "How many of them the server has signed; null if none is known.",
            "countersigned_at": "When, in seconds since 1970; null if none is known.",
        },
        made_in="client/cli/site.py:_verified",
    ),
    "site ledger verify": Output(
        keys={
            "entries": "How many, each as it was written.",
            "head": "The hash of the last one.",
            "unfinished": "Whether its last line is; it is repaired when the site starts.",
        },
        made_in="client/cli/ledger.py:verify",
    ),
    "site ledger show": Output(of="wardround.client.privacy.ledger.report:LedgerReport"),
    "site peers list": Output(_LIST, keys=_PEER, made_in="common/security/peer_card.py:facts"),
    "server peers list": Output(_LIST, keys=_PEER, made_in="common/security/peer_card.py:facts"),
    "server status": Output(of=f"{MESSAGES}:ServerSummary"),
    "runs list": Output(_LIST, of=f"{MESSAGES}:RunSummary"),
    "runs show": Output(of=f"{MESSAGES}:RunDetails"),
    "runs watch": Output(_LINES, of=f"{MESSAGES}:RunEvent"),
    "runs stop": _STATE,
    "runs resume": _STATE,
    "runs promote": Output(
        of=f"{_PLACED}:Placed",
        keys={"folder": "The model folder in use."},
        parts={"falls": f"{_PLACED}:SiteFall"},
        made_in="src/wardround/commands/promotion.py:_said",
    ),
    "runs rollback": Output(
        of=f"{_PLACED}:Placed",
        keys={"folder": "The model folder in use again."},
        parts={"falls": f"{_PLACED}:SiteFall"},
        made_in="src/wardround/commands/promotion.py:_said",
    ),
    "runs promoted": Output(
        _LIST,
        of=f"{_PLACED}:Placed",
        keys={"folder": "The model folder."},
        parts={"falls": f"{_PLACED}:SiteFall"},
        made_in="src/wardround/commands/promotion.py:_said",
    ),
    "runs withdraw": Output(of="wardround.server.sites.withdrawals_told:WithdrawalPlanned"),
    "runs withdrawals": Output(
        _LIST, of="wardround.server.sites.withdrawals_told:WithdrawalWaiting"
    ),
    "withdraw": Output(
        of="wardround.server.sites.withdrawal:WithdrawalPlan",
        keys={
            "run": "The run folder of the repeat; absent with --plan, as what follows.",
            "certificate": "Its file.",
            "model": "The digest of the new model.",
        },
    ),
    "model verify-withdrawal": Output(
        keys={
            "certificate": "What was signed.",
            "server": "The key that signed it.",
            "asked": "The signed request in it.",
            "asked_by": "The key that signed that.",
            "is_revoked": "Whether the model of --revoked is one of those that are revoked.",
        },
        made_in="client/cli/model.py:verify_withdrawal",
    ),
    "sites list": Output(_LIST, of=f"{MESSAGES}:SiteSummary"),
    "server invite": Output(
        keys={
            "site": "Who is invited.",
            "expires": "Until when, in seconds since 1970.",
            "token": "What the site joins with, once; null if it was written to a file.",
            "file": "That file, with --out; null without.",
        },
        made_in="server/cli/server.py:invite",
    ),
    "data get": Output(
        keys={
            "name": "The data set's.",
            "title": "In words.",
            "examinations": "How many.",
            "patients": "How many.",
            "licence": "Of the data set.",
        },
        made_in="simulations/cli/simulate.py:run_get",
    ),
    "data list": Output(_LIST, of="wardround.simulations.datasets.catalogue:DatasetSummary"),
    "data show": Output(
        of="wardround.simulations.datasets.examinations:DatasetFacts",
        keys={
            "modality": "Kind of image.",
            "task": "What can be learned from it.",
            "options": "Each option of a study's [simulation.options], with meaning and default.",
        },
    ),
    "federation try": Output(
        keys={
            "run": "Its name at the server.",
            "digest": "The study's.",
            "rounds": "That were trained.",
            "metric": "In which values are told.",
            "values": "The metric after each round that was measured.",
            "seconds": "Of each round.",
            "model": "The model's file.",
            "server": "The server's folder.",
            "sites": "The sites' folders.",
            "without": "Sites that took part in no round.",
            "missed": "In how many rounds a site did not train, by its name.",
        },
        made_in="simulations/cli/federation.py:_as_json",
    ),
    "model verify": Output(
        keys={
            "digest": "Of the model folder, which is whole.",
            "signed_by": "The key that signed it; null if none.",
            "rounds": "Who signed its rounds, a sentence each.",
        },
        made_in="client/cli/model.py:verify",
    ),
    "model show": Output(
        keys={
            "digest": "Of the model folder.",
            "signed_by": "The key that signed it; empty if none.",
            "contract": "What the model was made for.",
            "metrics": "How good it was measured to be.",
        },
        made_in="client/cli/model.py:show",
    ),
}
