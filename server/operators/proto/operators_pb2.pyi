from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StudyForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STUDY_FORM_UNSPECIFIED: _ClassVar[StudyForm]
    STUDY_FORM_TOML: _ClassVar[StudyForm]
    STUDY_FORM_JSON: _ClassVar[StudyForm]

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_QUEUED: _ClassVar[RunState]
    RUN_STATE_STARTING: _ClassVar[RunState]
    RUN_STATE_WAITING_FOR_SITES: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_STOPPING: _ClassVar[RunState]
    RUN_STATE_STOPPED: _ClassVar[RunState]
    RUN_STATE_FINISHED: _ClassVar[RunState]
    RUN_STATE_FAILED: _ClassVar[RunState]

class RunEventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_EVENT_KIND_UNSPECIFIED: _ClassVar[RunEventKind]
    RUN_EVENT_KIND_STATE: _ClassVar[RunEventKind]
    RUN_EVENT_KIND_ROUND: _ClassVar[RunEventKind]
    RUN_EVENT_KIND_MEASURED: _ClassVar[RunEventKind]
    RUN_EVENT_KIND_REFUSAL: _ClassVar[RunEventKind]
    RUN_EVENT_KIND_NOTE: _ClassVar[RunEventKind]
    RUN_EVENT_KIND_END: _ClassVar[RunEventKind]
STUDY_FORM_UNSPECIFIED: StudyForm
STUDY_FORM_TOML: StudyForm
STUDY_FORM_JSON: StudyForm
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_QUEUED: RunState
RUN_STATE_STARTING: RunState
RUN_STATE_WAITING_FOR_SITES: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_STOPPING: RunState
RUN_STATE_STOPPED: RunState
RUN_STATE_FINISHED: RunState
RUN_STATE_FAILED: RunState
RUN_EVENT_KIND_UNSPECIFIED: RunEventKind
RUN_EVENT_KIND_STATE: RunEventKind
RUN_EVENT_KIND_ROUND: RunEventKind
RUN_EVENT_KIND_MEASURED: RunEventKind
RUN_EVENT_KIND_REFUSAL: RunEventKind
RUN_EVENT_KIND_NOTE: RunEventKind
RUN_EVENT_KIND_END: RunEventKind

class Nothing(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AboutRun(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class Submission(_message.Message):
    __slots__ = ("text", "form", "sites", "canary")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    text: str
    form: StudyForm
    sites: _containers.RepeatedScalarFieldContainer[str]
    canary: bool
    def __init__(self, text: _Optional[str] = ..., form: _Optional[_Union[StudyForm, str]] = ..., sites: _Optional[_Iterable[str]] = ..., canary: _Optional[bool] = ...) -> None: ...

class WithdrawalAsked(_message.Message):
    __slots__ = ("run", "site", "patients")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    PATIENTS_FIELD_NUMBER: _ClassVar[int]
    run: str
    site: str
    patients: bool
    def __init__(self, run: _Optional[str] = ..., site: _Optional[str] = ..., patients: _Optional[bool] = ...) -> None: ...

class Submitted(_message.Message):
    __slots__ = ("run", "study", "digest", "ahead")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    run: str
    study: str
    digest: str
    ahead: int
    def __init__(self, run: _Optional[str] = ..., study: _Optional[str] = ..., digest: _Optional[str] = ..., ahead: _Optional[int] = ...) -> None: ...

class RunSummary(_message.Message):
    __slots__ = ("run", "study", "digest", "state", "message", "round", "rounds", "metric", "value", "submitted", "started", "ended", "without", "missed")
    class MissedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    run: str
    study: str
    digest: str
    state: RunState
    message: str
    round: int
    rounds: int
    metric: str
    value: float
    submitted: float
    started: float
    ended: float
    without: _containers.RepeatedScalarFieldContainer[str]
    missed: _containers.ScalarMap[str, int]
    def __init__(self, run: _Optional[str] = ..., study: _Optional[str] = ..., digest: _Optional[str] = ..., state: _Optional[_Union[RunState, str]] = ..., message: _Optional[str] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., metric: _Optional[str] = ..., value: _Optional[float] = ..., submitted: _Optional[float] = ..., started: _Optional[float] = ..., ended: _Optional[float] = ..., without: _Optional[_Iterable[str]] = ..., missed: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Runs(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[RunSummary]
    def __init__(self, runs: _Optional[_Iterable[_Union[RunSummary, _Mapping]]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("site", "reason", "asked", "times")
    SITE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    site: str
    reason: str
    asked: str
    times: int
    def __init__(self, site: _Optional[str] = ..., reason: _Optional[str] = ..., asked: _Optional[str] = ..., times: _Optional[int] = ...) -> None: ...

class RoundReport(_message.Message):
    __slots__ = ("round", "measured_round", "seconds", "value", "sites", "refusals")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MEASURED_ROUND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    round: int
    measured_round: int
    seconds: float
    value: float
    sites: _containers.RepeatedScalarFieldContainer[str]
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    def __init__(self, round: _Optional[int] = ..., measured_round: _Optional[int] = ..., seconds: _Optional[float] = ..., value: _Optional[float] = ..., sites: _Optional[_Iterable[str]] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ...) -> None: ...

class EvidenceRow(_message.Message):
    __slots__ = ("pack", "site", "subject", "metric", "value", "low", "high", "lost", "expected", "patients", "note")
    PACK_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    PATIENTS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    pack: str
    site: str
    subject: str
    metric: str
    value: float
    low: float
    high: float
    lost: float
    expected: float
    patients: int
    note: str
    def __init__(self, pack: _Optional[str] = ..., site: _Optional[str] = ..., subject: _Optional[str] = ..., metric: _Optional[str] = ..., value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., lost: _Optional[float] = ..., expected: _Optional[float] = ..., patients: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...

class RunDetails(_message.Message):
    __slots__ = ("summary", "sites", "starts", "deadlines", "history", "refusals", "evidence", "canary")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    DEADLINES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    summary: RunSummary
    sites: _containers.RepeatedScalarFieldContainer[str]
    starts: int
    deadlines: str
    history: _containers.RepeatedCompositeFieldContainer[RoundReport]
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    evidence: _containers.RepeatedCompositeFieldContainer[EvidenceRow]
    canary: CanaryReport
    def __init__(self, summary: _Optional[_Union[RunSummary, _Mapping]] = ..., sites: _Optional[_Iterable[str]] = ..., starts: _Optional[int] = ..., deadlines: _Optional[str] = ..., history: _Optional[_Iterable[_Union[RoundReport, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., evidence: _Optional[_Iterable[_Union[EvidenceRow, _Mapping]]] = ..., canary: _Optional[_Union[CanaryReport, _Mapping]] = ...) -> None: ...

class CanaryRow(_message.Message):
    __slots__ = ("site", "stage", "state", "fact", "remedy")
    SITE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FACT_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    site: str
    stage: str
    state: str
    fact: str
    remedy: str
    def __init__(self, site: _Optional[str] = ..., stage: _Optional[str] = ..., state: _Optional[str] = ..., fact: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class CanaryReport(_message.Message):
    __slots__ = ("rows", "rounds", "round_seconds", "study_seconds", "bytes_of_a_site")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    ROUND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STUDY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_OF_A_SITE_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[CanaryRow]
    rounds: int
    round_seconds: float
    study_seconds: float
    bytes_of_a_site: int
    def __init__(self, rows: _Optional[_Iterable[_Union[CanaryRow, _Mapping]]] = ..., rounds: _Optional[int] = ..., round_seconds: _Optional[float] = ..., study_seconds: _Optional[float] = ..., bytes_of_a_site: _Optional[int] = ...) -> None: ...

class SitePart(_message.Message):
    __slots__ = ("site", "round", "seconds", "bytes_down", "bytes_up")
    SITE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    site: str
    round: int
    seconds: float
    bytes_down: int
    bytes_up: int
    def __init__(self, site: _Optional[str] = ..., round: _Optional[int] = ..., seconds: _Optional[float] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ...) -> None: ...

class SiteValue(_message.Message):
    __slots__ = ("site", "round", "split", "value")
    SITE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    site: str
    round: int
    split: str
    value: float
    def __init__(self, site: _Optional[str] = ..., round: _Optional[int] = ..., split: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class MeasuredValue(_message.Message):
    __slots__ = ("site", "round", "split", "metric", "class_name", "value")
    SITE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    site: str
    round: int
    split: str
    metric: str
    class_name: str
    value: float
    def __init__(self, site: _Optional[str] = ..., round: _Optional[int] = ..., split: _Optional[str] = ..., metric: _Optional[str] = ..., class_name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class RunRecord(_message.Message):
    __slots__ = ("details", "study", "server", "parts", "values", "measured")
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    details: RunDetails
    study: str
    server: str
    parts: _containers.RepeatedCompositeFieldContainer[SitePart]
    values: _containers.RepeatedCompositeFieldContainer[SiteValue]
    measured: _containers.RepeatedCompositeFieldContainer[MeasuredValue]
    def __init__(self, details: _Optional[_Union[RunDetails, _Mapping]] = ..., study: _Optional[str] = ..., server: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[SitePart, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[SiteValue, _Mapping]]] = ..., measured: _Optional[_Iterable[_Union[MeasuredValue, _Mapping]]] = ...) -> None: ...

class WithdrawalPlanned(_message.Message):
    __slots__ = ("site", "without", "first_round", "after_round", "rounds", "done", "kept", "seconds", "is_exact", "why", "first_rounds", "others", "asked", "run", "digest", "words")
    class FirstRoundsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SITE_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROUND_FIELD_NUMBER: _ClassVar[int]
    AFTER_ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    IS_EXACT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    site: str
    without: str
    first_round: int
    after_round: int
    rounds: int
    done: int
    kept: _containers.RepeatedScalarFieldContainer[int]
    seconds: float
    is_exact: bool
    why: _containers.RepeatedScalarFieldContainer[str]
    first_rounds: _containers.ScalarMap[str, int]
    others: _containers.RepeatedScalarFieldContainer[str]
    asked: bool
    run: str
    digest: str
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, site: _Optional[str] = ..., without: _Optional[str] = ..., first_round: _Optional[int] = ..., after_round: _Optional[int] = ..., rounds: _Optional[int] = ..., done: _Optional[int] = ..., kept: _Optional[_Iterable[int]] = ..., seconds: _Optional[float] = ..., is_exact: _Optional[bool] = ..., why: _Optional[_Iterable[str]] = ..., first_rounds: _Optional[_Mapping[str, int]] = ..., others: _Optional[_Iterable[str]] = ..., asked: _Optional[bool] = ..., run: _Optional[str] = ..., digest: _Optional[str] = ..., words: _Optional[_Iterable[str]] = ...) -> None: ...

class WithdrawalWaiting(_message.Message):
    __slots__ = ("site", "without", "time", "study", "run")
    SITE_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    site: str
    without: str
    time: float
    study: str
    run: str
    def __init__(self, site: _Optional[str] = ..., without: _Optional[str] = ..., time: _Optional[float] = ..., study: _Optional[str] = ..., run: _Optional[str] = ...) -> None: ...

class Withdrawals(_message.Message):
    __slots__ = ("waiting",)
    WAITING_FIELD_NUMBER: _ClassVar[int]
    waiting: _containers.RepeatedCompositeFieldContainer[WithdrawalWaiting]
    def __init__(self, waiting: _Optional[_Iterable[_Union[WithdrawalWaiting, _Mapping]]] = ...) -> None: ...

class ModelPart(_message.Message):
    __slots__ = ("digest", "kept_round", "data")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    KEPT_ROUND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    digest: str
    kept_round: int
    data: bytes
    def __init__(self, digest: _Optional[str] = ..., kept_round: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("kind", "state", "message", "round", "rounds", "metric", "value", "seconds", "site", "sites", "time")
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    kind: RunEventKind
    state: RunState
    message: str
    round: int
    rounds: int
    metric: str
    value: float
    seconds: float
    site: str
    sites: _containers.RepeatedScalarFieldContainer[str]
    time: float
    def __init__(self, kind: _Optional[_Union[RunEventKind, str]] = ..., state: _Optional[_Union[RunState, str]] = ..., message: _Optional[str] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., metric: _Optional[str] = ..., value: _Optional[float] = ..., seconds: _Optional[float] = ..., site: _Optional[str] = ..., sites: _Optional[_Iterable[str]] = ..., time: _Optional[float] = ...) -> None: ...

class SiteSummary(_message.Message):
    __slots__ = ("site", "joined", "expires", "revoked", "seen", "connected", "lost", "wardround", "monitoring", "monitored")
    SITE_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    WARDROUND_FIELD_NUMBER: _ClassVar[int]
    MONITORING_FIELD_NUMBER: _ClassVar[int]
    MONITORED_FIELD_NUMBER: _ClassVar[int]
    site: str
    joined: float
    expires: float
    revoked: bool
    seen: float
    connected: bool
    lost: float
    wardround: str
    monitoring: str
    monitored: float
    def __init__(self, site: _Optional[str] = ..., joined: _Optional[float] = ..., expires: _Optional[float] = ..., revoked: _Optional[bool] = ..., seen: _Optional[float] = ..., connected: _Optional[bool] = ..., lost: _Optional[float] = ..., wardround: _Optional[str] = ..., monitoring: _Optional[str] = ..., monitored: _Optional[float] = ...) -> None: ...

class Sites(_message.Message):
    __slots__ = ("sites",)
    SITES_FIELD_NUMBER: _ClassVar[int]
    sites: _containers.RepeatedCompositeFieldContainer[SiteSummary]
    def __init__(self, sites: _Optional[_Iterable[_Union[SiteSummary, _Mapping]]] = ...) -> None: ...

class ServerSummary(_message.Message):
    __slots__ = ("name", "version", "address", "started", "link_is_up", "sites", "connected", "runs", "certificate_expires")
    class RunsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    LINK_IS_UP_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    address: str
    started: float
    link_is_up: bool
    sites: int
    connected: int
    runs: _containers.ScalarMap[str, int]
    certificate_expires: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., address: _Optional[str] = ..., started: _Optional[float] = ..., link_is_up: _Optional[bool] = ..., sites: _Optional[int] = ..., connected: _Optional[int] = ..., runs: _Optional[_Mapping[str, int]] = ..., certificate_expires: _Optional[float] = ...) -> None: ...
