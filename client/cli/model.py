"""``wardround model``: a model folder shown, checked, signed, handed on and taken in."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wardround.common.models.model_folder import ModelFolder

model_app = typer.Typer(
    help="A model folder: shown, verified, signed, exported, imported.", no_args_is_help=True
)
ModelPath = Annotated[Path, typer.Argument(help="A model folder.", show_default=False)]
Key = Annotated[
    Path | None, typer.Option(help="The public key that must have signed it.", show_default=False)
]
ServerKey = Annotated[
    Path | None,
    typer.Option(help="The public key of the server that must have signed its rounds."),
]
SiteKey = Annotated[
    Path | None, typer.Option(help="The public key of a site that must have signed a part of them.")
]
_FORMATS = ("bundle", "onnx", "torch")


@model_app.command()
def show(model: ModelPath, as_json: AsJson = False) -> None:
    """Print the model card; with --json contract and metrics.

    Example: wardround model show runs/first/models/federated
    """
    from wardround.common.models.model_folder import open_model_folder
    from wardround.common.runtime.printable import printable

    found = open_model_folder(model)
    if as_json:
        said = {
            "digest": found.digest,
            "signed_by": found.signed_by,
            "contract": found.contract.model_dump(mode="json"),
            "metrics": [one.model_dump(mode="json") for one in found.measured],
        }
        sys.stdout.write(json.dumps(said) + "\n")
        return
    sys.stdout.write(printable(found.card, 100_000, lines=True).rstrip() + "\n")
    sys.stdout.write(f"digest {found.digest}\n{_signed_words(found)}\n")


@model_app.command()
def verify(
    model: ModelPath,
    key: Key = None,
    server_key: ServerKey = None,
    site_key: SiteKey = None,
    as_json: AsJson = False,
) -> None:
    """Check a model offline: its files to the byte, its weights, its rounds, and who signed them.

    A model that a federation made brings a record of its rounds, signed by sites and server.
    With --server-key or --site-key, a model without that key's signature is refused.

    Example: wardround model verify received/model --server-key server.pub --site-key site.pub
    """
    from wardround.common.models.documents.signed_rounds import check_keys, model_lineage
    from wardround.common.models.model_folder import (
        check_shapes,
        open_model_folder,
        require_exact_bytes,
    )
    from wardround.common.security.signing_key import open_public_key

    found = open_model_folder(model, None if key is None else open_public_key(key))
    require_exact_bytes(found)
    weights = found.weights()
    if found.contract.complete:
        check_shapes(found.study, weights)
    lineage = model_lineage(found, weights)
    keys = [None if one is None else open_public_key(one) for one in (server_key, site_key)]
    said = check_keys(lineage, *keys)
    if as_json:
        facts = {"digest": found.digest, "signed_by": found.signed_by, "rounds": said}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        return
    lines = ("The model is whole.", f"digest {found.digest}", _signed_words(found), *said)
    sys.stdout.write("\n".join(lines) + "\n")


@model_app.command("verify-withdrawal")
def verify_withdrawal(
    certificate: Annotated[Path, typer.Argument(help="A certificate.", show_default=False)],
    model: Annotated[
        Path | None, typer.Option(help="The model folder that it must be about.")
    ] = None,
    revoked: Annotated[
        Path | None, typer.Option(help="A model folder: is it one of those that are revoked?")
    ] = None,
    server_key: ServerKey = None,
    site_key: SiteKey = None,
    as_json: AsJson = False,
) -> None:
    """Check the certificate of a withdrawal offline: what was repeated, and by whom it is signed.

    With --model, the model's signed rounds must be those of the certificate; with --revoked, the
    answer is 1 where a model was made with the one that left.

    Example: wardround model verify-withdrawal withdrawal.json --server-key server.pub
    """
    from wardround.common.models.documents.withdrawn import (
        certificate_words,
        check_keys,
        check_model,
        is_revoked,
    )
    from wardround.common.runtime.printable import write_lines
    from wardround.common.security.signing_key import open_public_key
    from wardround.common.security.withdrawal.certificate import read_certificate

    found = read_certificate(certificate)
    keys = [None if one is None else open_public_key(one) for one in (server_key, site_key)]
    check_keys(found, *keys)
    if model is not None:
        check_model(found, model)
    is_bad = revoked is not None and is_revoked(found, revoked)
    if as_json:
        said = {
            "certificate": found.said.model_dump(mode="json"),
            "server": found.server,
            "asked": found.request.asked.model_dump(mode="json"),
            "asked_by": found.request.key,
            "is_revoked": is_bad,
        }
        sys.stdout.write(json.dumps(said) + "\n")
    else:
        lines = [*certificate_words(found)]
        lines += [] if model is None else [f"{model} is the model of the certificate."]
        if revoked is not None:
            lines.append(f"{revoked} {'IS REVOKED' if is_bad else 'is not among those revoked'}.")
        write_lines("\n".join(lines) + "\n")
    if is_bad:
        raise typer.Exit(1)


@model_app.command()
def sign(
    model: ModelPath,
    keys: Annotated[
        Path, typer.Option(help="Folder of the key; one is made there if there is none.")
    ],
) -> None:
    """Sign a model with an Ed25519 key, so that others can tell whom it comes from.

    Example: wardround model sign runs/first/models/federated --keys signing
    """
    from wardround.common.models.model_folder import sign_model_folder
    from wardround.common.security.signing_key import PUBLIC_FILE, open_key

    public = sign_model_folder(model, open_key(keys))
    sys.stdout.write(
        f"Signed with {public}.\nGive {keys / PUBLIC_FILE} to whoever is to verify it.\n"
    )


@model_app.command()
def export(
    model: ModelPath,
    out: Annotated[Path, typer.Option(help="What to write; must be new.")],
    to: Annotated[str, typer.Option("--to", help="bundle, onnx or torch.")] = "bundle",
    image: Annotated[
        str | None,
        typer.Option(
            help="An image to compare the outputs on; random numbers if absent.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a model for other programs: a MONAI bundle, ONNX, or a program of torch.export.

    Example: wardround model export runs/first/models/federated --to onnx --out model.onnx
    """
    from wardround.common.errors import InputError, known_names
    from wardround.common.models.bundle import write_bundle
    from wardround.common.models.exchange import write_exported, write_onnx
    from wardround.common.models.model_folder import open_model_folder

    if to not in _FORMATS:
        raise InputError(known_names("value of --to", to, _FORMATS))
    found = open_model_folder(model)
    if to == "bundle":
        write_bundle(found, out)
        sys.stdout.write(
            f"{out}\nTo run it, put images into {out}/data; then in Python:\n"
            f"monai.bundle.run(config_file='{out}/configs/inference.json', "
            f"bundle_root='{out}')\n"
        )
        return
    sample = _sample(found, image)
    write = write_onnx if to == "onnx" else write_exported
    difference = write(sample.network, sample.inputs, out)
    sys.stdout.write(
        f"{out}\nLargest difference from torch on {sample.of}: {difference:.3g}\n"
        "The file takes prepared images: orientation, spacing, size and intensities as in "
        "contract.json.\n"
    )


@model_app.command("import")
def take_in(
    bundle: Annotated[Path, typer.Argument(help="The folder of a MONAI bundle.")],
    out: Annotated[Path, typer.Option(help="The model folder to write; must be new.")],
    study: Annotated[
        Path | None,
        typer.Option(
            help="A study file with the bundle's network and [data]; a bundle that wardround "
            "wrote needs none.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Take the weights of a MONAI bundle in, as a model folder; nothing of it is executed.

    Example: wardround model import spleen_bundle --study spleen.toml --out models/spleen
    """
    from wardround.common.models.imported import import_bundle
    from wardround.common.study.loading import load_study

    digest = import_bundle(bundle, None if study is None else load_study(study), out)
    sys.stdout.write(f"{out}\ndigest {digest}\nNothing of the bundle was executed.\n")


@model_app.command()
def pretrain(model: ModelPath) -> None:
    """Put a model's weights where studies find them, and print the key that starts from them.

    The study names the weights by hash. In a federation the server needs them: it sends them on.

    Example: wardround model pretrain models/spleen
    """
    from wardround.common.models.model_folder import open_model_folder
    from wardround.common.models.pretrained import offer_weights

    sha256 = offer_weights(open_model_folder(model))
    sys.stdout.write(f'Write into the study:\n\n[model]\nweights_sha256 = "{sha256}"\n')


@dataclass(frozen=True, slots=True)
class _Sample:
    """What an export is compared on."""

    network: "nn.Module"
    inputs: "tuple[Tensor, ...]"
    of: str


def _sample(model: "ModelFolder", image: str | None) -> _Sample:
    import torch

    from wardround.client.clinic.inference.predictor import load_predictor
    from wardround.common.models.lora import merge_adapters

    study, network = model.study, model.network()
    merge_adapters(network)
    data, inputs, of = study.data, [], "random numbers"
    generator = torch.Generator().manual_seed(0)
    if data.kind == "image":
        if image is not None:
            from wardround.client.clinic.inference.inputs import find_inputs, read_images

            one = find_inputs([image], study)[0]
            prepared = load_predictor(model.path, "cpu").prepare(read_images(one, study))
            inputs.append(_as_network_takes(model, prepared.image))
            of = "the image"
        else:
            size = study.input_size or (64,) * data.dimensions
            inputs.append(torch.randn(1, data.planes, *size, generator=generator))
    if data.covariate_width:
        inputs.append(torch.randn(1, data.covariate_width, generator=generator))
    # Two of a kind: with one, an exporter takes the size of the batch for a constant.
    return _Sample(network, tuple(torch.cat([one, one]) for one in inputs), of)


def _as_network_takes(model: "ModelFolder", image: "Tensor | None") -> "Tensor":
    """Return ``(1, C, *spatial)``: the middle window where the study takes windows."""
    from wardround.client.data.preprocessing.geometry import centre_fit
    from wardround.client.tasks.windows import accepted_sizes, pad_around
    from wardround.common.errors import InputError

    if image is None:
        msg = "the model takes no image: leave --image out."
        raise InputError(msg)
    patch = model.study.training.patch_size
    if patch is not None:
        import torch

        return torch.from_numpy(centre_fit(image[None].numpy(), patch, None))
    if not model.study.task.dense:
        return image[None]
    return pad_around(image[None], accepted_sizes(image.shape[1:], model.study))[0]


def _signed_words(model: "ModelFolder") -> str:
    if model.signed_by is None:
        return "not signed"
    return f"signed with {model.signed_by}"
