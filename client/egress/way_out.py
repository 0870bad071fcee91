"""How a content leaves a site: checked against its schema, and written down in the audit log."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import RecordDict

from wardround.client.egress.guard import MessageSchema, check_message
from wardround.client.egress.receipts import add_report
from wardround.client.egress.repeated_refusals import due
from wardround.client.policy.plan_limit import plan_limit
from wardround.client.policy.policy import Policy, open_policy
from wardround.client.policy.rules import Facts, require_allowed
from wardround.client.site.folder import AUDIT_FOLDER, KEY_FOLDER, Site, open_site
from wardround.common.errors import PolicyError
from wardround.common.flower.messages.content import fingerprint_of
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.lineage import LINEAGE_RECORD
from wardround.common.security.audit_log import AuditLog, Event
from wardround.common.security.signing_key import open_key
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.common.messages.masking import StageAsked

_MOST_SITES = 4096  # of one process


@dataclass(frozen=True, slots=True)
class WayOut:
    """The way out of one site, by its policy as it was when this was opened.

    Attributes:
        policy: What the site allows, or why that is not known: then it allows nothing.
    """

    site: Site
    policy: Policy | PolicyError
    log: AuditLog

    @classmethod
    def open(cls, folder: Path) -> "WayOut":
        """Open the way out of a site folder.

        Raises:
            DataError: It is no site folder.
            InputError: The site's key cannot be used.
        """
        site = open_site(folder)
        policy: Policy | PolicyError
        try:
            policy = open_policy(site.folder)
        except PolicyError as error:
            policy = error
        is_hospital = isinstance(policy, PolicyError) or not policy.simulated
        return cls(site, policy, open_audit_log(site.folder, durable=is_hospital))

    @property
    def is_simulated(self) -> bool:
        """Whether the site says that it is no hospital."""
        return isinstance(self.policy, Policy) and self.policy.simulated

    def require_allowed(self, study: Study, facts: Facts) -> Policy:
        """Return the policy, if it allows a study.

        Raises:
            PolicyError: It does not, or there is none.
            StudyError: What the study spends takes too long to work out.
        """
        if isinstance(self.policy, PolicyError):
            raise self.policy
        # Only what a site adds noise to has a promise that takes time to work out.
        is_private = what_leaves(study).noise_added_by == "site"
        with plan_limit() if is_private else nullcontext():
            require_allowed(self.policy, study, facts)
        return self.policy

    def leave(self, content: RecordDict, schema: MessageSchema, event: Event) -> RecordDict:
        """Return a content, once it has passed the guard and is written down.

        Raises:
            GuardError: It is not what the schema says.
            AuditError: It cannot be written down.
        """
        self.check(content, schema)
        return self.write_down(content, event)

    def check(self, content: RecordDict, schema: MessageSchema) -> None:
        """Have the guard look at a content.

        Raises:
            GuardError: It is not what the schema says, or more bytes than the policy allows.
        """
        limit = self.policy.largest_message_bytes if isinstance(self.policy, Policy) else 0
        if type(content) is RecordDict and LINEAGE_RECORD in content:
            from wardround.client.egress.round_receipt import without_receipt

            content = without_receipt(content, self.site.folder)
        check_message(content, schema, limit)

    def write_down(self, content: RecordDict, event: Event) -> RecordDict:
        """Return a content that the guard has let through, once it stands in the audit log.

        A hospital adds how that log stood before, for the server to countersign.

        Raises:
            AuditError: It cannot be written down.
        """
        if not self.is_simulated:
            add_report(content, self.log)
        counted = due(self.site.folder, event)
        if counted is not None:
            seen = fingerprint_of(content)
            self.log.append(replace(counted, bytes=seen.bytes, sha256=seen.sha256))
        return content


@lru_cache(maxsize=_MOST_SITES)
def open_audit_log(folder: Path, durable: bool = True) -> AuditLog:
    """Return the audit log of a site folder, signed with the key that lies there.

    Raises:
        InputError: The key cannot be used.
    """
    return AuditLog(folder / AUDIT_FOLDER, open_key(folder / KEY_FOLDER, durable), durable)


def event_of(kind: str, asked: "Instruction | StageAsked") -> Event:
    """Return how the answer to a round's instruction stands in the audit log."""
    return Event(
        kind=kind,
        study=asked.digest,
        run=asked.run,
        round=asked.round,
        attempt=asked.attempt,
    )
