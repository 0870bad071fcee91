"""A model as a folder: weights, contract, metrics, card, licence, digest, signature.

======================= ====================================================================
``weights.safetensors`` all numbers of the network
``contract.json``       :class:`Contract`: the study, and what its images looked like
``metrics.json``        :class:`Metrics`: what was measured
``card.md``             the same for people
``licence.txt``         who may use it, and what for
``lineage.jsonl``       the signed record of its rounds, where a federation made it
``digest.json``         the SHA-256 of each of these files, and one over all of them
``signature.json``      an Ed25519 signature of that digest, where somebody signed
======================= ====================================================================

Nothing of a folder is executed: it is checked once, when it is opened, and holds numbers and text.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from wardround.common.errors import ModelError, StudyError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.models.contract import Contract, Digest, Measured, Metrics
from wardround.common.parameters.arithmetic import digest as parameters_digest
from wardround.common.parameters.model_file import load_model, save_model
from wardround.common.parameters.schema import (
    Parameters,
    compare_schemas,
    schema,
    write_parameters,
)
from wardround.common.runtime.printable import printable, refused_texts
from wardround.common.security.lineage import LINEAGE_FILE
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

WEIGHTS, CONTRACT, METRICS = "weights.safetensors", "contract.json", "metrics.json"
CARD, LICENCE, DIGEST, SIGNATURE = "card.md", "licence.txt", "digest.json", "signature.json"
_SIGNED = (WEIGHTS, CONTRACT, METRICS, CARD, LICENCE)
_MAY_LACK = (LINEAGE_FILE,)
_MOST_TEXT_BYTES = 16 * 2**20
_CONTEXT = b"wardround model folder 1\n"  # so that no signature of ours means anything else
_SHOWN = 12
_Model = TypeVar("_Model", bound=BaseModel)


class _DigestFile(BaseModel, frozen=True, extra="forbid"):
    files: dict[str, Digest]
    digest: Digest


class _SignatureFile(BaseModel, frozen=True, extra="forbid"):
    """Both in hexadecimal digits."""

    public_key: Digest
    signature: str


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder that was checked.

    Attributes:
        digest: Over all its files.
        signed_by: The Ed25519 public key in hexadecimal digits whose signature was verified; None
            where nobody signed.
    """

    path: Path
    contract: Contract
    study: Study
    measured: tuple[Measured, ...]
    digest: str
    signed_by: str | None

    @property
    def card(self) -> str:
        """The model card, Markdown; may hold anything, so it is printed through ``printable``."""
        return (self.path / CARD).read_text(encoding="utf-8", errors="replace")

    @property
    def licence(self) -> str:
        """The licence, as :attr:`card`."""
        return (self.path / LICENCE).read_text(encoding="utf-8", errors="replace")

    @property
    def lineage(self) -> bytes:
        """The signed record of its rounds, unverified; empty where it has none."""
        path = self.path / LINEAGE_FILE
        return path.read_bytes() if path.is_file() else b""

    @property
    def weights_path(self) -> Path:
        """The safetensors file."""
        return self.path / WEIGHTS

    def weights(self) -> Parameters:
        """Return all numbers of the network.

        Raises:
            ModelError: They are not those of the contract.
        """
        found = load_model(self.weights_path).parameters
        if parameters_digest(found) != self.contract.parameters:
            msg = "the weights are not those that the contract speaks of: copy the model again."
            raise ModelError(msg)
        return found

    def network(self) -> nn.Module:
        """Return the study's network with these weights, on the CPU, in evaluation mode.

        Raises:
            ModelError: The weights are not those of the contract or do not fit its network.
            StudyError: The network needs a package that is not installed.
        """
        if not self.contract.complete:
            msg = (
                "this model is only what the sites share: each site keeps a part of its own, "
                "without which it predicts nothing. Use a model folder of a site."
            )
            raise ModelError(msg)
        return network_with(self.study, self.weights())


def network_with(study: Study, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a study's network with given weights, on the CPU, in evaluation mode.

    The shapes are compared before any memory is asked for: a small file cannot ask for a network
    that fills the machine.

    Raises:
        ModelError: The weights do not fit the network.
        StudyError: The network needs a package that is not installed.
    """
    from wardround.common.models.networks.named_once import under_first_names
    from wardround.common.models.networks.registry import build_network

    check_shapes(study, weights)
    network = build_network(study, 0)
    write_parameters(network, under_first_names(network, weights))
    return network.eval()


def check_shapes(study: Study, weights: Mapping[str, Tensor]) -> None:
    """Check that weights are those of a study's network, which is given no memory for that.

    Raises:
        ModelError: A name, shape or type differs.
    """
    import torch

    from wardround.common.models.networks.named_once import under_first_names
    from wardround.common.models.networks.registry import build_network

    try:
        with torch.device("meta"):
            network = build_network(study, 0)
    except (NotImplementedError, RuntimeError):  # a network that computes while it is built
        network = build_network(study, 0)
    compare_schemas(schema(under_first_names(network, weights)), schema(network))


def write_model_folder(
    folder: Path,
    weights: Mapping[str, Tensor],
    contract: Contract,
    measured: tuple[Measured, ...],
    texts: tuple[str, str],
    lineage: str = "",
) -> str:
    """Write a model folder, in the place of an older one; return its digest.

    Args:
        texts: The card (Markdown) and the licence.
        lineage: The signed record of its rounds, where there is one.

    Raises:
        ModelError: It cannot be written.
    """
    card, licence = texts
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_model(part / WEIGHTS, weights, {"model": contract.name}, durable=False)
        _put(part / CONTRACT, contract.model_dump_json(indent=2))
        _put(part / METRICS, Metrics(measured=measured).model_dump_json(indent=2))
        _put(part / CARD, card)
        _put(part / LICENCE, licence)
        if lineage:
            _put(part / LINEAGE_FILE, lineage)
        found = _written_digest(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except OSError as error:
        msg = f"cannot write the model folder {folder} ({error.strerror}): choose another place."
        raise ModelError(msg) from None
    return found


def open_model_folder(folder: Path, key: "Ed25519PublicKey | None" = None) -> ModelFolder:
    """Open and check a model folder.

    Args:
        key: An Ed25519 public key that must have signed it; None takes any signature, or none.

    Raises:
        ModelError: It is no model folder, a file of it was changed, its signature is not the
            key's, or its study is not one that this version knows.
    """
    _check_files(folder)
    said = _read(folder / DIGEST, _DigestFile)
    files = _hashes(folder)
    for name, found in files.items():
        if said.files.get(name) != found:
            msg = f"{name} of the model was changed after it was written: copy the model again."
            raise ModelError(msg)
    if set(said.files) != set(files) or said.digest != _joined(files):
        msg = f"{DIGEST} of the model does not fit its files: copy the model again."
        raise ModelError(msg)
    signed_by = _signer(folder, said.digest, key)
    contract = _read(folder / CONTRACT, Contract)
    measured = _read(folder / METRICS, Metrics).measured
    study = _study_of(contract)
    return ModelFolder(folder, contract, study, measured, said.digest, signed_by)


def sign_model_folder(folder: Path, key: "Ed25519PrivateKey") -> str:
    """Sign a model folder that is whole; return the public key in hexadecimal digits.

    Args:
        key: An Ed25519 private key.

    Raises:
        ModelError: The folder was changed, or cannot be written.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    found = open_model_folder(folder)
    public = key.public_key().public_bytes_raw().hex()
    signature = key.sign(_CONTEXT + found.digest.encode()).hex()
    content = _SignatureFile(public_key=public, signature=signature).model_dump_json(indent=2)
    try:
        _put(folder / SIGNATURE, content)
    except OSError as error:
        msg = f"cannot write into the model folder {folder} ({error.strerror})."
        raise ModelError(msg) from None
    return public


def require_exact_bytes(model: ModelFolder) -> None:
    """Check that the two files over which no hash stands are spelt as they were written.

    Raises:
        ModelError: A blank or a newline of one was changed.
    """
    said = _read(model.path / DIGEST, _DigestFile)
    spelt = {DIGEST: _digest_text(said.files, said.digest)}
    if (model.path / SIGNATURE).is_file():
        spelt[SIGNATURE] = _read(model.path / SIGNATURE, _SignatureFile).model_dump_json(indent=2)
    for name, text in spelt.items():
        if (model.path / name).read_bytes() != f"{text}\n".encode():
            msg = f"{name} of the model was changed after it was written: copy the model again."
            raise ModelError(msg)


def is_model_folder(path: Path) -> bool:
    """Return whether a folder looks like a model folder; nothing of it is checked."""
    return (path / CONTRACT).is_file()


def _require_model_folder(folder: Path) -> None:
    if not folder.exists():
        msg = f"there is no model folder {folder}: mend the name."
        raise ModelError(msg)
    if not is_model_folder(folder):
        msg = (
            f"{folder} is not a model folder, it has no {CONTRACT}: give one that 'wardround "
            "simulate' left below models/, or 'wardround runs model' wrote."
        )
        raise ModelError(msg)


def _check_files(folder: Path) -> None:
    """Refuse what lies there beside the files of a model, links, and texts too large to read."""
    _require_model_folder(folder)
    for path in sorted(folder.iterdir()):
        if path.name not in (*_SIGNED, *_MAY_LACK, DIGEST, SIGNATURE):
            name = printable(path.name, 80)
            msg = f"the model folder holds {name!r}, which no model has: remove it."
            raise ModelError(msg)
        if path.is_symlink() or not path.is_file():
            msg = f"{path.name} of the model is not a plain file: copy the model again."
            raise ModelError(msg)
        if path.name != WEIGHTS and path.stat().st_size > _MOST_TEXT_BYTES:
            msg = f"{path.name} of the model is larger than {_MOST_TEXT_BYTES >> 20} MiB."
            raise ModelError(msg)
    for name in (*_SIGNED, DIGEST):
        if not (folder / name).is_file():
            msg = f"the model folder lacks {name}: copy the model again."
            raise ModelError(msg)


def _study_of(contract: Contract) -> Study:
    try:
        # Not planned: what is promised to patients was kept or not; nothing is trained here.
        study = parse_study(dict(contract.study), "the model's study", planned=False)
    except StudyError as error:
        raise ModelError(str(error)) from None
    if study.digest != contract.study_digest:
        msg = "the model's study is not the one that its contract names: copy the model again."
        raise ModelError(msg)
    if found := next(refused_texts(contract.model_dump(exclude={"study"})), ""):
        msg = f"the model's contract is refused: {found}"
        raise ModelError(msg)
    return study


def _signer(folder: Path, digest: str, key: "Ed25519PublicKey | None") -> str | None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not (folder / SIGNATURE).is_file():
        if key is None:
            return None
        msg = "nobody has signed this model: ask whoever made it to sign it, or give no key."
        raise ModelError(msg)
    said = _read(folder / SIGNATURE, _SignatureFile)
    try:
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(said.public_key))
        signer.verify(bytes.fromhex(said.signature), _CONTEXT + digest.encode())
    except (InvalidSignature, ValueError):
        msg = "the signature does not fit the model: it was changed, or never signed so."
        raise ModelError(msg) from None
    if key is not None and key.public_bytes_raw() != signer.public_bytes_raw():
        msg = (
            f"the model was signed with another key ({said.public_key[:_SHOWN]}...) than the one "
            f"given ({key.public_bytes_raw().hex()[:_SHOWN]}...): get the signer's public key."
        )
        raise ModelError(msg)
    return said.public_key


def _put(path: Path, text: str) -> None:
    replace_file(path, text if text.endswith("\n") else text + "\n", BY_UMASK, durable=False)


def _written_digest(folder: Path) -> str:
    files = _hashes(folder)
    found = _joined(files)
    _put(folder / DIGEST, _digest_text(files, found))
    return found


def _hashes(folder: Path) -> dict[str, str]:
    names = (*_SIGNED, *(name for name in _MAY_LACK if (folder / name).exists()))
    return {name: _hash(folder / name) for name in names}


def _digest_text(files: Mapping[str, str], digest: str) -> str:
    return json.dumps({"files": files, "digest": digest}, indent=2)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _joined(files: Mapping[str, str]) -> str:
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _read(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, RecursionError) as error:
        said = "unreadable"
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            said = printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
        msg = f"{path.name} of the model is not what this version writes ({said})."
        raise ModelError(msg) from None
