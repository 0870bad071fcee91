"""The one way out of a site: what is said is allowed, reduced, guarded and written down."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from flwr.app import RecordDict

from wardround.client.data.manifest.label_words import label_words
from wardround.client.egress.answers.agreement import (
    agree,
    agree_on_pack,
    check_about,
    forget_agreement,
)
from wardround.client.egress.answers.evaluation import answer_evaluation
from wardround.client.egress.answers.training import answer_again, answer_training
from wardround.client.egress.disclosure import reduce_site_info
from wardround.client.egress.message_schema import (
    received_arrays,
    refusal_schema,
    update_bytes,
)
from wardround.client.egress.receipts import take_receipt
from wardround.client.egress.way_out import WayOut, event_of
from wardround.client.policy.evaluations import count_canary
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import DeniedError, Facts
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import Site
from wardround.common.errors import PolicyError
from wardround.common.messages.instructions import Instruction, unpack_instruction, unpack_weights
from wardround.common.messages.replies import Refusal, pack_refusal, pack_site_info
from wardround.common.models.pretrained import lacks_weights, read_weights, store_weights
from wardround.common.parameters.arithmetic import largest_weight
from wardround.common.parameters.schema import check_schema
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.security.audit_log import Event
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Every question that a site answers, by its policy as it is now.

    Attributes:
        explains_refusals: Whether a refusal gives its reason in a sentence; a hospital's never
            does.
    """

    way_out: WayOut
    explains_refusals: bool

    @classmethod
    def open(cls, folder: Path, explains: bool) -> "Gateway":
        """Open the gateway of a site folder.

        Args:
            explains: Whether this process is part of a simulation, which shows reasons.

        Raises:
            DataError: It is no site folder.
            InputError: The site's key cannot be used.
        """
        way_out = WayOut.open(folder)
        is_open = way_out.is_simulated or isinstance(way_out.policy, PolicyError)
        return cls(way_out, explains and is_open)

    @property
    def site(self) -> Site:
        """The site whose gateway it is."""
        return self.way_out.site

    def take_receipt(self, content: RecordDict) -> None:
        """Keep the server's receipt for the audit log, where an instruction brings one."""
        if not self.way_out.is_simulated:
            take_receipt(content, self.site, self.way_out.log)

    def keep_weights(self, study: Study, content: RecordDict) -> None:
        """Keep the weights that a study starts from, where they lack here and the server sent them.

        The hospital approved their hash with the study; nothing else is kept.

        Raises:
            ModelError: They are others.
            PolicyError: They hold numbers that the policy does not take.
        """
        sent = None if not lacks_weights(study) else unpack_weights(content)
        if sent is None or study.model.weights_sha256 is None:
            return
        weights = read_weights(study.model.weights_sha256, sent)
        self.require_allowed(study, Facts(largest_weight=largest_weight(weights)))
        store_weights(study.model.weights_sha256, sent)
        logger.info("took the weights of the study from the server bytes=%d", len(sent))

    def let_go(self, sessions: Iterable[SiteSession]) -> None:
        """Have this site's sessions drop what was withdrawn or changed since they read it.

        A simulated site's images stay as they are while it runs: only its manifest is looked at.
        """
        images, held = not self.way_out.is_simulated, tuple(sessions)
        for _ in range(2):  # one that lets go may remove what another has on the disk
            for session in held:
                if session.has_stale_data(images):
                    logger.info("the manifest or an image was changed: the data are read anew")
                    forget_agreement(session)
                    session.let_go()

    def require_allowed(self, study: Study, facts: Facts) -> Policy:
        """Return the policy, if it allows a study.

        Raises:
            PolicyError: It does not, or there is none.
            StudyError: What the study spends takes too long to work out.
        """
        return self.way_out.require_allowed(study, facts)

    def describe(self, session: SiteSession, standalone: bool) -> RecordDict:
        """Return what the site says of itself, if the policy allows the study.

        Raises:
            PolicyError: It does not.
            DataError: The data cannot be used.
        """
        study, agreed = session.context.study, agree(self.way_out, session)
        self.way_out.log.append(Event(kind="decision", study=study.digest))
        self._note_labels(session)
        said = reduce_site_info(session.describe(standalone), study, agreed.policy)
        said = replace(said, monitoring=self._monitoring_word(study, agreed.policy))
        event = Event(kind="site-info", study=study.digest)
        schema = agreed.schemas.site_info(said.monitoring)
        return self.way_out.leave(pack_site_info(said), schema, event)

    def _monitoring_word(self, study: Study, policy: Policy) -> str:
        """Return the one word on the last period that may leave; "" for none."""
        if policy.monitoring == "no":
            return ""
        from wardround.client.policy.monitoring_word import word_of_period

        private = what_leaves(study).noise_added_by == "site"
        try:
            word, is_new = word_of_period(self.way_out.site.state_folder, policy, private)
        except PolicyError as error:  # a study does not wait for it
            logger.warning("%s", error)
            return ""
        if is_new:
            self.way_out.log.append(Event(kind="monitoring", study=study.digest))
        return word

    def train(self, session: SiteSession, instruction: Instruction, standalone: bool) -> RecordDict:
        """Return the site's update; :func:`answer_training` says when there is none."""
        return answer_training(self.way_out, session, instruction, standalone)

    def answer_masking(self, session: SiteSession, content: RecordDict) -> RecordDict:
        """Return the site's message of a later stage of a masked round.

        Args:
            content: Of the server's question.
        """
        from wardround.client.egress.answers.masked import answer_masking

        return answer_masking(self.way_out, session, content)

    def send_again(self, study: Study, content: RecordDict) -> RecordDict:
        """Return an update that has passed before, if the policy still allows the study."""
        return answer_again(self.way_out, study, content)

    def evaluate(self, session: SiteSession, instruction: Instruction) -> RecordDict:
        """Return the site's evaluation; :func:`answer_evaluation` says when there is none."""
        return answer_evaluation(self.way_out, session, instruction)

    def tell_statistics(self, session: SiteSession, digest: str) -> RecordDict:
        """Return the histograms that a study is planned from, if the policy allows them.

        A study has one answer: who asks again gets the same bytes.

        Args:
            digest: Which study the server asks about.
        """
        from wardround.client.egress.answers.statistics import answer_statistics

        agreed, study = agree(self.way_out, session), session.context.study
        self._note_labels(session)
        event = Event(kind="statistics", study=study.digest)
        content = answer_statistics(session, digest, agreed.policy, self.way_out.check)
        return self.way_out.write_down(content, event)

    def tell_packs(self, session: SiteSession, content: RecordDict) -> RecordDict:
        """Return the evidence of a finished model, once a run, if study and policy allow it.

        Args:
            content: Of the server's question.
        """
        from wardround.client.egress.packs.answer import answer_packs

        instruction = unpack_instruction(content)
        agreed = agree_on_pack(self.way_out, session, instruction)
        told = answer_packs(session, instruction, agreed.policy, self.way_out.check)
        return self.way_out.write_down(told, event_of("pack", instruction))

    def tell_placements(self, session: SiteSession, content: RecordDict) -> RecordDict:
        """Return the squares of placement values against merged histograms, once a run.

        Args:
            content: Of the server's question.
        """
        from wardround.client.egress.packs.answer import answer_placements
        from wardround.common.messages.packs import merged_counts

        instruction = unpack_instruction(content)
        agreed = agree_on_pack(self.way_out, session, instruction)
        merged = merged_counts(content, session.context.study)
        told = answer_placements(session, instruction, merged, agreed.policy, self.way_out.check)
        return self.way_out.write_down(told, event_of("placements", instruction))

    def tell_canary(
        self, study: Study, content: RecordDict, device: str, is_tolerant: bool
    ) -> RecordDict:
        """Return how an approved study would go here, in words; nothing is charged or trained.

        Args:
            content: Of the server's question.
            device: Where it would be trained.
            is_tolerant: Whether a patient whose data cannot be used counts as nobody.

        Raises:
            DeniedError: The policy does not allow the study, or no more canaries of it.
        """
        from wardround.client.egress.canary.answer import canary_schema, try_stages
        from wardround.common.messages.canary import asked_canary, pack_canary

        check_about(study, asked_canary(content))
        policy = self.require_allowed(study, Facts(now=datetime.now().time()))
        count_canary(self.site.folder, study.digest, policy)
        site = replace(self.site, is_tolerant=is_tolerant)
        said = try_stages(site, study, policy, lambda: ModelContext.build(study, device))
        event = Event(kind="canary", study=study.digest)
        return self.way_out.leave(pack_canary(said), canary_schema(site, study), event)

    def carry(self, study: Study, content: RecordDict, device: str) -> RecordDict:
        """Return the model that a server sent, as an update of an approved study travels.

        Args:
            content: An instruction, with the study's shared model.
            device: Where it would be trained.

        Raises:
            DeniedError: The policy does not allow the study.
            ModelError: The arrays are not those of the study.
        """
        from wardround.client.egress.canary.update import carried, carried_schema

        instruction = unpack_instruction(content)
        check_about(study, instruction.digest)
        self.require_allowed(study, Facts())
        context = ModelContext.build(study, device)
        check_schema(instruction.parameters, received_arrays(context)[0])
        self.require_allowed(study, Facts(update_bytes=update_bytes(context)))
        packed = carried(context, instruction, self.site.name)
        schema = carried_schema(context, instruction, self.site.name)
        return self.way_out.leave(packed, schema, event_of("carry", instruction))

    def refuse(
        self, code: str, reason: str, error: Exception, cause: str | None = None
    ) -> RecordDict:
        """Return a refusal: a word of a closed set, and a sentence in a simulation.

        Args:
            cause: The word that stands in the log, where another one leaves.
        """
        refusal = Refusal(self.site.name, code, reason if self.explains_refusals else "")
        event = Event(kind="refusal", verdict=f"deny: {cause or code}")
        if isinstance(error, MaskingError):
            event = replace(event, verdict=f"deny: secure aggregation, {error.refusal.value}")
        if isinstance(error, DeniedError):
            event = replace(event, verdict=f"deny: {', '.join(error.rules)}", study=error.digest)
        schema = refusal_schema(self.site.name, self.explains_refusals)
        return self.way_out.leave(pack_refusal(refusal), schema, event)

    def _note_labels(self, session: SiteSession) -> None:
        """Write down which words the site reads as which classes, and what its readers said.

        Both by their digest: of what readers said the hash of its chain's last line.
        """
        study, log = session.context.study, self.way_out.log
        if digest := label_words(session.site, study).digest:
            log.append(Event(kind="labels", study=study.digest, sha256=digest))
        if session.site.corrections_path.exists():
            from wardround.client.data.manifest.corrections import read_corrections

            head = read_corrections(session.site.corrections_path).head
            verdict = f"allow: {head.entries} corrections of readers count"
            said = Event(kind="corrections", verdict=verdict, study=study.digest, sha256=head.hash)
            log.append(said)
