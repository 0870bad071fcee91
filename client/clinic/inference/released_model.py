"""The finished model of a study, fetched from the server and kept as a model folder.

Only what all sites share comes. The server is not believed: what comes is bounded while it is read,
and is taken only if it is the network of the study that was approved here, with numbers that the
policy takes.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

import httpx
from pydantic import ValidationError

import wardround
from wardround.client.policy.approvals import Decision, approvals_of, full_digest, study_file
from wardround.client.policy.policy import Policy, open_policy
from wardround.client.policy.received_models import note_received
from wardround.client.policy.rules import require_packages
from wardround.client.session.model_context import ModelContext
from wardround.client.site.credentials import load_site_tls, make_client_context
from wardround.client.site.folder import open_site
from wardround.client.site.server_client import (
    RefusedByServerError,
    explain_failure,
    open_link,
)
from wardround.common.errors import InputError, ModelError, PolicyError
from wardround.common.files.atomic import keep_owner, keep_owner_of_folder, make_private_folder
from wardround.common.models.card import Origin, licence_text, model_card
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import write_model_folder
from wardround.common.parameters.arithmetic import digest as parameters_digest
from wardround.common.parameters.arithmetic import largest_weight
from wardround.common.parameters.model_file import LINEAGE, load_model
from wardround.common.parameters.schema import Parameters, compare_schemas, read_parameters, schema
from wardround.common.runtime.printable import printable
from wardround.common.security.lineage_verification import (
    Lineage,
    lineage_words,
    verify_lineage,
)
from wardround.common.security.released_model import (
    LARGEST_HEADER,
    RELEASE_HEADER,
    ReleasedModel,
    models_path,
)
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study

_LARGEST_REFUSAL = 4_096
_SENTENCES = {
    404: (
        "the server has no finished model of this study for this site: the run has not finished, "
        "this site took no part in it, or the server gives no models. Ask the server's operator."
    ),
    429: "this site is fetching a model already: wait until that has ended.",
}


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model that was taken.

    Attributes:
        digest: Of the model folder.
        is_complete: Whether it predicts by itself; otherwise each site has a part of its own.
    """

    folder: Path
    said: ReleasedModel
    digest: str
    is_complete: bool


def fetch_model(site_folder: Path, digits: str, out: Path, address: str = "") -> FetchedModel:
    """Fetch the model of a study that was approved here, and write it as a model folder.

    Args:
        digits: The study's digest, or how it begins.
        out: The model folder; it is new.
        address: Of the server, "host:port", where it is not that of ``site.toml``.

    Raises:
        InputError: The study is not known here, or the folder is there already.
        PolicyError: The site's policy takes no model, or the study was not approved here.
        RunError: The server was not reached, or refused.
        ModelError: What came is not the study's model, or is more than the policy takes.
    """
    site = open_site(site_folder)
    policy, digest = open_policy(site_folder), full_digest(site_folder, digits)
    study = _approved_study(site_folder, digest, policy)
    require_packages(policy, study)
    if out.exists():
        msg = f"{out} is there already: choose another folder with --out."
        raise InputError(msg)
    state = site.state_folder
    make_private_folder(state)
    staged = Path(mkdtemp(dir=state, prefix="model-"))
    try:
        said = _download(site_folder, digest, staged / "fetched", policy, address)
        shared, header = load_model(staged / "fetched")
        weights, complete = _checked(shared, said, study, policy)
        lineage = header.get(LINEAGE, "")
        signed = _signed(lineage, said, study)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    contract = Contract(
        wardround=wardround.__version__,
        name=study.name,
        run=said.run,
        round=said.round,
        study=study_content(study),
        study_digest=study.digest,
        parameters=parameters_digest(weights),
        complete=complete,
        seen_note="a site does not know what other sites' images look like",
    )
    origin = replace(_origin(said, study), lineage=lineage_words(signed))
    card = model_card(contract, study, origin, ())
    texts = (
        card,
        licence_text("The weights were made from the data of several hospitals: ask them.", study),
    )
    make_private_folder(out.parent)
    written = write_model_folder(out, weights, contract, (), texts, lineage)
    note_received(site_folder, study.digest, said.model)
    keep_owner_of_folder(out)  # whoever types this, the site's account can read it
    for path in out.iterdir():
        with path.open("rb") as stream:
            keep_owner(stream.fileno(), out)
    return FetchedModel(out, said, written, complete)


def _approved_study(site_folder: Path, digest: str, policy: Policy) -> Study:
    if not policy.takes_models:
        msg = "policy.toml says takes_models = false: this site fetches no model."
        raise PolicyError(msg)
    decisions: tuple[Decision, ...] = approvals_of(site_folder, digest)
    path = study_file(site_folder, digest)
    if path is None or not (decisions or digest in policy.approved or "any" in policy.approved):
        msg = (
            f"study {digest[:16]} was not approved here, so that its model is none of this site's: "
            "'wardround site explain' shows a study, 'wardround site approve' approves it."
        )
        raise PolicyError(msg)
    study = load_study(path)
    if study.digest != digest:
        msg = f"{path.name} below {path.parent.name}/ was changed: get the study's file again."
        raise InputError(msg)
    return study


def fetch_present(
    site_folder: Path, study: Study, policy: Policy, address: str = ""
) -> tuple[ReleasedModel, Parameters]:
    """Return the last model of a run that is not over, as its sites share it; nothing is kept.

    A hospital may look at it before it decides on the study: it was checked as a finished one is.

    Raises:
        RunError: The server was not reached, or has no run of the study for this site.
        ModelError: What came is not the study's model, or is more than the policy takes.
    """
    state = open_site(site_folder).state_folder
    make_private_folder(state)
    staged = Path(mkdtemp(dir=state, prefix="model-"))
    try:
        place = staged / "fetched"
        said = _download(site_folder, study.digest, place, policy, address, now=True)
        weights, _ = _checked(load_model(place).parameters, said, study, policy)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return said, weights


def _download(  # where from, what, and where to
    site_folder: Path, digest: str, place: Path, policy: Policy, address: str, now: bool = False
) -> ReleasedModel:
    """Write what the server sends to a file, no byte more than the policy and the server say."""
    tls = load_site_tls(site_folder)
    server = address or tls.address
    try:
        with (
            open_link(server, make_client_context(tls)) as client,
            client.stream("GET", models_path(digest, now)) as response,
        ):
            if response.status_code != httpx.codes.OK:
                msg = _SENTENCES.get(
                    response.status_code,
                    f"the server answered {response.status_code}: ask its operator.",
                )
                raise RefusedByServerError(msg)
            said = _release(response)
            if said.bytes > policy.largest_message_bytes:
                msg = (
                    f"the model has {said.bytes / 1e6:.3g} MB; the policy takes at most "
                    f"{policy.largest_message_megabytes:g} MB (largest_message_megabytes)."
                )
                raise ModelError(msg)
            taken = 0
            with place.open("wb") as stream:
                for part in response.iter_raw():
                    taken += len(part)
                    if taken > said.bytes:
                        break
                    stream.write(part)
    except httpx.HTTPError as error:
        raise explain_failure(error, server) from None
    if taken != said.bytes:
        msg = "what came is not as long as the server said: fetch it again."
        raise ModelError(msg)
    return said


def _release(response: httpx.Response) -> ReleasedModel:
    text = response.headers.get(RELEASE_HEADER, "")
    try:
        if len(text) > LARGEST_HEADER:
            raise ValueError
        return ReleasedModel.model_validate(json.loads(text))
    except (ValidationError, ValueError, RecursionError):
        msg = (
            "the server answered in a way that is not understood: compare 'wardround --version' "
            "on both sides."
        )
        raise RefusedByServerError(msg) from None


def _checked(
    shared: Parameters, said: ReleasedModel, study: Study, policy: Policy
) -> tuple[Parameters, bool]:
    """Return the whole model and whether it is complete, once it is what it should be."""
    if parameters_digest(shared) != said.model:
        msg = "what came is not the model that the server's log speaks of: fetch it again."
        raise ModelError(msg)
    found = largest_weight(shared)
    if not found <= policy.largest_weight:  # NaN is not at most anything
        msg = (
            f"a number of the model is {found:g}; the policy takes at most "
            f"{policy.largest_weight:g} (largest_weight)."
        )
        raise ModelError(msg)
    context = ModelContext.build(study, "cpu")
    whole = read_parameters(context.network)
    complete = not context.layout.personal
    expected = {
        name: tensor
        for name, tensor in whole.items()
        if complete or name not in context.layout.personal_part(whole)
    }
    compare_schemas(schema(context.on_base(shared)), schema(expected))
    return context.on_base(shared), complete


def _signed(lineage: str, said: ReleasedModel, study: Study) -> Lineage | None:
    """Return what the signed record of the rounds says, once it was verified."""
    if not lineage:
        return None
    content = lineage.encode("utf-8", errors="replace")
    return verify_lineage(content, study.digest, said.model, said.round)


def _origin(said: ReleasedModel, study: Study) -> Origin:
    promise = (
        "nothing was promised to patients: what the model remembers of them is not bounded"
        if study.privacy.mode == "none"
        else f"the study promises privacy to each {study.privacy.mode}; each site's ledger says "
        "what was spent"
    )
    hospitals = "1 hospital" if said.sites == 1 else f"{said.sites} hospitals"
    return Origin(
        (f"patients of {hospitals}, in the run {printable(said.run, 80)}",),
        (promise, "what is personal to a site is not in this model: it has never left the site"),
        "ask the hospitals that took part",
        sites=(f"{said.sites} hospitals; a server tells no site which",),
        source=("the hospitals' own data, which have not left them",),
        environment=("the machines of the hospitals and of the server: their operators know them",),
        verdict=("it was compared with no model of this hospital here",),
    )
