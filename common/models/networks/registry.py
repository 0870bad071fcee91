"""A network from a study: by name, from an allow-list, with the same weights for the same seed.

MONAI's networks are imported when one is chosen. There is no narrower door: ``monai/__init__.py``
loads every submodule whichever is asked for (2-4 s and 220 MB, at any import path).
"""

from collections.abc import Callable
from importlib.util import find_spec
from math import prod

import torch
from torch import nn

from wardround.common.errors import StudyError, install_command, known_names
from wardround.common.models.lora import add_adapters, freeze
from wardround.common.models.networks.detection import BoxDetector, DetectorShape
from wardround.common.models.networks.fusion import fused
from wardround.common.models.networks.named_once import name_once
from wardround.common.models.networks.restoring import Contrasting, Restoring
from wardround.common.models.networks.small import (
    MLP,
    FirstOutput,
    Layers,
    SmallCNN,
    replace_normalisation,
)
from wardround.common.models.private_layers import keep_constants_home, replace_layers
from wardround.common.models.sharing import head_layer, head_names, layout_of
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.registry import (
    DETECTOR_WIDTHS,
    NETWORKS,
    anchor_sides,
    largest_patch,
)
from wardround.common.study.study import Study

_SMALL_IMAGE = 64  # up to this size a residual network keeps its full resolution at the start


def build_network(study: Study, seed: int) -> nn.Module:
    """Return the study's network on the CPU, in training mode.

    It takes images ``(B, planes, *spatial)``, covariates ``(B, F)``, or both in this order, and
    returns logits ``(B, K)``, or ``(B, K, *spatial)`` for a segmentation; of a detection what it
    says of each anchor; of pretraining images ``(B, planes, *spatial)``, or features of each view.
    The global random state is left as it was.

    Raises:
        StudyError: The network is unknown, needs a package that is not installed, or cannot take
            the study's images.
    """
    name = study.model.network
    entry = NETWORKS.get(name)
    if entry is None:
        raise StudyError(known_names("network", name, NETWORKS))
    _require(entry.extra, name)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reset the generators of all GPUs too.
        torch.default_generator.manual_seed(seed)
        is_image = study.data.kind == "image"
        network = fused(study, _of_images) if is_image else _of_images(study)
        if study.model.fixer == "opacus":
            network = replace_layers(network)
        name_once(network)
        # Last, so that the frozen base is the network that the seed makes without adapters.
        if study.model.adapter_rank is not None:
            rank, scale = study.model.adapter_rank, study.model.adapter_scale
            add_adapters(network, rank, scale, head_names(network))
        if study.model.frozen:
            freeze(network, study.model.frozen)
        if plan_of(study).objective == "coral":
            from wardround.common.models.networks.feature_moments import add_moments

            add_moments(network, head_layer(network))
        keep_constants_home(network, study)
    return network


def require_network(study: Study) -> None:
    """Check by building it a network that is not Wardround's own, or of which a part is frozen.

    What the others take follows from the study alone, and was checked as it was read.

    Raises:
        StudyError: It does not take the study's arguments, images or outputs, or is too large; or
            what is frozen of it leaves nothing to train, to share or to keep.
        PackageError: Its package is not installed as the study names it.
    """
    if study.model.network not in BUILDERS or study.model.frozen:
        layout_of(build_network(study, study.federation.seed), plan_of(study))


def _of_images(study: Study) -> nn.Module:
    """Return the network of the study's channels, or of a table; what is beside them aside."""
    name, chosen = study.model.network, study.model.normalisation
    network = BUILDERS[name](study) if name in BUILDERS else _named(study)
    if chosen != "default" and name not in _OWN:
        replace_normalisation(network, chosen, study.data.dimensions)
    if study.model.test_time_statistics is not None:
        from wardround.common.models.networks.test_time import mix_statistics

        mix_statistics(network, study.model.test_time_statistics)
    if study.task.restores and "segmentation" not in NETWORKS[name].tasks:
        kind = Contrasting if study.contrasts else Restoring
        return kind(network, study.data.planes, _size(study))
    return network


def _named(study: Study) -> nn.Module:
    from wardround.common.models.networks.named import build_named  # few studies have one

    return build_named(study)


def _small_cnn(study: Study) -> nn.Module:
    return SmallCNN(
        study.data.input_planes, study.output_count, _size(study), _layers(study, (16, 32))
    )


def _convnext(study: Study) -> nn.Module:
    from wardround.common.models.networks.convnext import ConvNeXt

    widths = study.model.features or (32, 64, 128)
    return ConvNeXt(study.data.input_planes, study.output_count, study.data.dimensions, widths)


def _mlp(study: Study) -> nn.Module:
    if study.data.kind == "table":
        values = study.data.covariate_width
    else:
        values = study.data.input_planes * prod(_size(study))
    return MLP(values, study.output_count, _layers(study, (64, 32)))


def _unet(study: Study) -> nn.Module:
    """Residual U-Net (Ronneberger 2015; Kerfoot 2018)."""
    widths = study.model.features or (16, 32, 64, 128)
    return _monai(
        "UNet",
        **_shape(study),
        channels=widths,
        strides=(2,) * (len(widths) - 1),
        num_res_units=2,
        dropout=study.model.dropout,
        **_activation(study),
    )


def _basic_unet(study: Study) -> nn.Module:
    """U-Net with five levels of two convolutions (Ronneberger 2015; Falk 2019)."""
    return _monai(
        "BasicUNet",
        **_shape(study),
        features=study.model.features or (32, 32, 64, 128, 256, 32),
        dropout=study.model.dropout,
        **_activation(study),
    )


def _attention_unet(study: Study) -> nn.Module:
    """Attention U-Net (Oktay 2018)."""
    widths = study.model.features or (16, 32, 64, 128)
    return _monai(
        "AttentionUnet",
        **_shape(study),
        channels=widths,
        strides=(2,) * (len(widths) - 1),
        dropout=study.model.dropout,
    )


def _segresnet(study: Study) -> nn.Module:
    """SegResNet without the autoencoder branch (Myronenko 2018)."""
    return _monai(
        "SegResNet",
        **_shape(study),
        dropout_prob=study.model.dropout or None,
        **_activation(study),
    )


def _dynunet(study: Study) -> nn.Module:
    """The U-Net of nnU-Net (Isensee 2021), with its deep supervision where it is asked for."""
    widths, coarser = study.model.features or (32, 64, 128, 256), study.model.deep_supervision
    strides = (1,) + (2,) * (len(widths) - 1)
    arguments: dict[str, object] = {
        **_shape(study),
        "kernel_size": (3,) * len(widths),
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": widths,
        "dropout": study.model.dropout or None,
        **_activation(study, key="act_name"),
    }
    if not coarser:
        return _monai("DynUNet", **arguments)
    from wardround.common.models.networks.deep_supervision import SupervisedDynUNet

    arguments |= {"deep_supervision": True, "deep_supr_num": coarser}
    return _defined(SupervisedDynUNet(**arguments), "DynUNet", arguments)


def _swin_unetr(study: Study) -> nn.Module:
    """Swin UNETR (Hatamizadeh 2022)."""
    return _monai("SwinUNETR", **_shape(study), drop_rate=study.model.dropout)


def _densenet121(study: Study) -> nn.Module:
    """DenseNet-121 (Huang 2017)."""
    return _monai(
        "DenseNet121",
        **_shape(study),
        dropout_prob=study.model.dropout,
        **_activation(study),
    )


def _resnet(study: Study, blocks: str) -> nn.Module:
    """ResNet (He 2016); small images get the 3x3 stem that the paper uses for CIFAR."""
    small = max(_size(study)) <= _SMALL_IMAGE
    return _monai(
        blocks,
        spatial_dims=study.data.dimensions,
        n_input_channels=study.data.input_planes,
        num_classes=study.output_count,
        conv1_t_size=3 if small else 7,
        conv1_t_stride=1 if small else 2,
        no_max_pool=small,
        bias_downsample=False,  # a normalisation follows, which takes any bias away again
        **_activation(study),
    )


def _efficientnet(study: Study) -> nn.Module:
    """EfficientNet-B0 (Tan and Le 2019)."""
    return _monai(
        "EfficientNetBN",
        model_name="efficientnet-b0",
        pretrained=False,
        spatial_dims=study.data.dimensions,
        in_channels=study.data.input_planes,
        num_classes=study.output_count,
    )


def _vit(study: Study) -> nn.Module:
    """Vision transformer (Dosovitskiy 2021) in the size DeiT-Tiny (Touvron 2021)."""
    from monai.networks.nets import ViT

    size = _size(study)
    return FirstOutput(
        ViT(
            study.data.input_planes,
            img_size=size,
            patch_size=tuple(largest_patch(length) for length in size),
            hidden_size=192,
            mlp_dim=768,
            num_layers=12,
            num_heads=3,
            classification=True,
            num_classes=study.output_count,
            dropout_rate=study.model.dropout,
            spatial_dims=study.data.dimensions,
            post_activation="none",  # the default squeezes the logits into (-1, 1)
            qkv_bias=True,
        )
    )


def _retinanet(study: Study) -> nn.Module:
    """RetinaNet (Lin 2017), with group normalisation and one anchor a place."""
    return BoxDetector(
        DetectorShape(
            study.data.dimensions,
            study.data.input_planes,
            study.class_count,
            study.model.features or DETECTOR_WIDTHS,
            anchor_sides(study.model.features, study.model.anchors),
            study.model.activation,
        )
    )


BUILDERS: dict[str, Callable[[Study], nn.Module]] = {
    "small-cnn": _small_cnn,
    "convnext": _convnext,
    "mlp": _mlp,
    "unet": _unet,
    "basic-unet": _basic_unet,
    "attention-unet": _attention_unet,
    "segresnet": _segresnet,
    "dynunet": _dynunet,
    "swin-unetr": _swin_unetr,
    "densenet121": _densenet121,
    "resnet18": lambda study: _resnet(study, "resnet18"),
    "resnet50": lambda study: _resnet(study, "resnet50"),
    "efficientnet-b0": _efficientnet,
    "vit": _vit,
    "retinanet": _retinanet,
}
_OWN = ("small-cnn", "mlp", "retinanet")  # they place their normalisations themselves


def _require(extra: str | None, network: str) -> None:
    if extra == "transformers" and find_spec("einops") is None:
        msg = (
            f"model.network = {network!r} needs the package einops: "
            f"run {install_command('transformers')}."
        )
        raise StudyError(msg)


def _size(study: Study) -> tuple[int, ...]:
    if study.input_size is None:
        msg = f"data.size is missing: {study.model.network} needs images of one size."
        raise StudyError(msg)
    return study.input_size


def _monai(name: str, **arguments: object) -> nn.Module:
    """Build one of MONAI's networks, and have it say what it was built of, for a bundle."""
    from monai.networks import nets

    return _defined(getattr(nets, name)(**arguments), name, arguments)


def _defined(network: nn.Module, name: str, arguments: dict[str, object]) -> nn.Module:
    """Return a network that says what it was built of."""
    network.monai_definition = {"_target_": f"monai.networks.nets.{name}", **arguments}  # type: ignore[assignment] # torch types it a module
    return network


def _shape(study: Study) -> dict[str, int]:
    """Return what most of MONAI's networks call their dimensions, inputs and outputs."""
    return {
        "spatial_dims": study.data.dimensions,
        "in_channels": study.data.input_planes,
        "out_channels": study.output_count,
    }


def _activation(study: Study, key: str = "act") -> dict[str, str]:
    chosen = study.model.activation
    return {} if chosen == "default" else {key: chosen}


def _layers(study: Study, widths: tuple[int, ...]) -> Layers:
    model = study.model
    return Layers(
        widths if model.features is None else model.features,
        "none" if model.normalisation == "default" else model.normalisation,
        model.activation,
        model.dropout,
    )
