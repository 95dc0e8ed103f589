"""The networks of keras-cv-attention-models ("kecam"), as records.

The package is imported when one of its networks is built, not before.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfgraphreg.backbones.records import Backbone
from tfgraphreg.errors import ModelError

_PAPERS = {
    "resnext": "Xie et al. 2016, arXiv:1611.05431",
    "resnest": "Zhang et al. 2020, arXiv:2004.08955",
    "vit": "Dosovitskiy et al. 2020, arXiv:2010.11929",
    "beit": "Bao et al. 2021, arXiv:2106.08254",
    "coat": "Xu et al. 2021, arXiv:2104.06399",
    "levit": "Graham et al. 2021, arXiv:2104.01136",
    "swin_v2": "Liu et al. 2021, arXiv:2111.09883",
    "mobilevit": "Mehta and Rastegari 2021, arXiv:2110.02178",
    "mobilevit_v2": "Mehta and Rastegari 2022, arXiv:2206.02680",
    "resmlp": "Touvron et al. 2021, arXiv:2105.03404",
    "mlp_mixer": "Tolstikhin et al. 2021, arXiv:2105.01601",
    "nfnet": "Brock et al. 2021, arXiv:2102.06171",
    "nfnet_light": "Brock et al. 2021, arXiv:2102.06171",
    "convnext_v2": "Woo et al. 2023, arXiv:2301.00808",
}

# What a family's networks share. Below their smallest size some give NaN and some do not build.
_FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"preprocessing": "minus_one_to_one", "multiple_of": 16, "learning_rate": 1e-4},
    "beit": {"preprocessing": "minus_one_to_one", "multiple_of": 16, "learning_rate": 1e-4},
    "resnext": {},
    "resnest": {},
    "coat": {"learning_rate": 1e-4, "multiple_of": 32},
    # With fewer pixels the last stage sees one position, and its attention has nothing to learn.
    "levit": {"min_size": 65},
    "swin_v2": {"min_size": 40, "learning_rate": 1e-4},
    "mobilevit": {"preprocessing": "zero_to_one"},
    "mobilevit_v2": {"preprocessing": "zero_to_one"},
    "resmlp": {"multiple_of": 16, "learning_rate": 1e-4},
    "mlp_mixer": {"preprocessing": "minus_one_to_one", "multiple_of": 32, "learning_rate": 1e-4},
    "nfnet": {"learning_rate": 1e-4},
    "nfnet_light": {"learning_rate": 1e-4},
    "convnext_v2": {"learning_rate": 1e-4},
}

# Name, family, kecam's builder, name of its pretrained weights, features, parameters, default size.
_ROWS: list[tuple[str, str, str, str, int, int, int]] = [
    ("resnext50", "resnext", "resnet_family.ResNeXt50", "imagenet", 2048, 22979904, 224),
    ("resnext101", "resnext", "resnet_family.ResNeXt101", "imagenet", 2048, 42128704, 224),
    ("resnext50d", "resnext", "resnet_family.ResNeXt50D", "imagenet", 2048, 22999136, 224),
    ("resnest50", "resnest", "resnest.ResNest50", "imagenet", 2048, 25434240, 224),
    ("resnest101", "resnest", "resnest.ResNest101", "imagenet", 2048, 46226016, 256),
    ("vit_tiny_patch16", "vit", "beit.ViTTinyPatch16", "imagenet21k-ft1k", 192, 5524416, 224),
    ("vit_base_patch16", "vit", "beit.ViTBasePatch16", "imagenet21k-ft1k", 768, 85798656, 224),
    ("beit_tiny_patch16", "beit", "beit.Beit", "", 192, 5515248, 224),
    ("beit_base_patch16", "beit", "beit.BeitBasePatch16", "imagenet21k-ft1k", 768, 85761984, 224),
    (
        "beit_v2_base_patch16",
        "beit",
        "beit.BeitV2BasePatch16",
        "imagenet21k-ft1k",
        768,
        85761984,
        224,
    ),
    ("coat_lite_tiny", "coat", "coat.CoaTLiteTiny", "imagenet", 320, 5400960, 224),
    ("coat_lite_mini", "coat", "coat.CoaTLiteMini", "imagenet", 512, 10498560, 224),
    ("coat_lite_small", "coat", "coat.CoaTLiteSmall", "imagenet", 512, 19325504, 224),
    ("coat_tiny", "coat", "coat.CoaTTiny", "imagenet", 152, 7572644, 224),
    ("coat_mini", "coat", "coat.CoaTMini", "imagenet", 216, 14611940, 224),
    ("levit_128s", "levit", "levit.LeViT128S", "imagenet", 384, 7005522, 224),
    ("levit_128", "levit", "levit.LeViT128", "imagenet", 384, 8442400, 224),
    ("levit_192", "levit", "levit.LeViT192", "imagenet", 384, 10175533, 224),
    ("levit_256", "levit", "levit.LeViT256", "imagenet", 512, 17865828, 224),
    ("levit_384", "levit", "levit.LeViT384", "imagenet", 768, 37587764, 224),
    (
        "swin_v2_tiny_ns",
        "swin_v2",
        "swin_transformer_v2.SwinTransformerV2Tiny_ns",
        "imagenet",
        768,
        27564468,
        224,
    ),
    (
        "swin_v2_tiny",
        "swin_v2",
        "swin_transformer_v2.SwinTransformerV2Tiny_window8",
        "imagenet",
        768,
        27578154,
        256,
    ),
    (
        "swin_v2_small",
        "swin_v2",
        "swin_transformer_v2.SwinTransformerV2Small_window8",
        "imagenet",
        768,
        48959418,
        256,
    ),
    (
        "swin_v2_base",
        "swin_v2",
        "swin_transformer_v2.SwinTransformerV2Base_window8",
        "imagenet",
        1024,
        86893816,
        256,
    ),
    ("mobilevit_xxs", "mobilevit", "mobilevit.MobileViT_XXS", "imagenet", 320, 951024, 256),
    ("mobilevit_xs", "mobilevit", "mobilevit.MobileViT_XS", "imagenet", 384, 1932848, 256),
    ("mobilevit_s", "mobilevit", "mobilevit.MobileViT_S", "imagenet", 640, 4937632, 256),
    (
        "mobilevit_v2_050",
        "mobilevit_v2",
        "mobilevit.MobileViT_V2_050",
        "imagenet",
        256,
        1113593,
        256,
    ),
    (
        "mobilevit_v2_100",
        "mobilevit_v2",
        "mobilevit.MobileViT_V2_100",
        "imagenet",
        512,
        4388841,
        256,
    ),
    ("resmlp12", "resmlp", "mlp_family.ResMLP12", "imagenet", 384, 14965872, 224),
    ("resmlp24", "resmlp", "mlp_family.ResMLP24", "imagenet", 384, 29635680, 224),
    ("resmlp36", "resmlp", "mlp_family.ResMLP36", "imagenet", 384, 44305488, 224),
    ("mlp_mixer_s32", "mlp_mixer", "mlp_family.MLPMixerS32", "imagenet", 512, 18591624, 224),
    ("mlp_mixer_s16", "mlp_mixer", "mlp_family.MLPMixerS16", "imagenet", 512, 18015264, 224),
    ("mlp_mixer_b32", "mlp_mixer", "mlp_family.MLPMixerB32", "imagenet", 768, 59524428, 224),
    ("mlp_mixer_b16", "mlp_mixer", "mlp_family.MLPMixerB16", "imagenet", 768, 59111472, 224),
    ("nfnet_f0", "nfnet", "nfnets.NFNetF0", "imagenet", 3072, 68416284, 256),
    ("nfnet_f1", "nfnet", "nfnets.NFNetF1", "imagenet", 3072, 129561256, 320),
    ("nfnet_l0", "nfnet_light", "nfnets.NFNetL0", "imagenet", 2304, 32769488, 288),
    ("eca_nfnet_l0", "nfnet_light", "nfnets.ECA_NFNetL0", "imagenet", 2304, 21838924, 288),
    ("convnext_v2_atto", "convnext_v2", "convnext.ConvNeXtV2Atto", "imagenet", 320, 3386760, 224),
    ("convnext_v2_femto", "convnext_v2", "convnext.ConvNeXtV2Femto", "imagenet", 384, 4847472, 224),
    ("convnext_v2_pico", "convnext_v2", "convnext.ConvNeXtV2Pico", "imagenet", 512, 8552256, 224),
    ("convnext_v2_nano", "convnext_v2", "convnext.ConvNeXtV2Nano", "imagenet", 640, 14981520, 224),
    ("convnext_v2_tiny", "convnext_v2", "convnext.ConvNeXtV2Tiny", "imagenet", 768, 27864960, 224),
    ("convnext_v2_base", "convnext_v2", "convnext.ConvNeXtV2Base", "imagenet", 1024, 87690752, 224),
]

# LayerScale at the start, by depth (Touvron et al. 2021, arXiv:2105.03404).
_RESMLP_GAMMA = {"ResMLP12": 0.1, "ResMLP24": 1e-5, "ResMLP36": 1e-6}

# The library's smallest BeiT has 86 million parameters; this one has the sizes of ViT's tiny one.
_SIZES: dict[str, dict[str, Any]] = {
    "beit_tiny_patch16": {"depth": 12, "embed_dim": 192, "num_heads": 3}
}


def build(
    *,
    input_shape: tuple[int, int, int],
    weights: str | None,
    network: str,
    release: str = "imagenet",
    **arguments: Any,
) -> Any:
    """Builds `network`, such as ``"levit.LeViT128S"``, without its classifier.

    Args:
        input_shape: (H, W, C) of the preprocessed images.
        weights: None or ``"imagenet"``.
        network: Module and builder inside the package.
        release: What the package calls the ImageNet weights of this network.
        arguments: Further arguments of the builder.

    Raises:
        MissingExtraError: If the package is not installed.
        ModelError: If the installed version lacks the network.
    """
    from tfgraphreg.compat import load_kecam

    kecam = load_kecam()
    module, _, name = network.partition(".")
    try:
        builder = getattr(importlib.import_module(f"{kecam.__name__}.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"The installed keras-cv-attention-models has no {network}.",
            received=f"version {getattr(kecam, '__version__', 'unknown')}",
            cure="Run: pip install keras-cv-attention-models==1.4.3.",
        ) from error
    said = io.StringIO()
    with contextlib.redirect_stdout(said), _resize_keeps_type(kecam):
        model = builder(
            input_shape=input_shape,
            num_classes=0,
            pretrained=release if weights else None,
            **arguments,
        )
    # A failed download is a printed line there, and the weights stay random.
    if weights and "Load pretrained from" not in said.getvalue():
        why = (said.getvalue().strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(
            f"The ImageNet weights of {name} were not loaded ({why[:200]}).",
            received=f"weights={weights!r}",
            cure="Connect to the network, or use weights='none' or a file.",
        )
    if weights is None and module == "levit":
        _wake_levit(model)
    if weights is None and name in _RESMLP_GAMMA:
        _calm_resmlp(model, _RESMLP_GAMMA[name])
    return model


@contextlib.contextmanager
def _resize_keeps_type(kecam: Any) -> Iterator[None]:
    """Casts resized maps back, which CoaT joins with others: TensorFlow makes them float32."""
    from tfgraphreg.compat import tf

    functional = importlib.import_module(f"{kecam.__name__}.tf_functional")
    resize = functional.resize

    def same_type(image, *args, **kwargs):
        resized = resize(image, *args, **kwargs)
        return resized if resized.dtype == image.dtype else tf.cast(resized, image.dtype)

    functional.resize = same_type  # type: ignore[attr-defined]
    try:
        yield
    finally:
        functional.resize = resize  # type: ignore[attr-defined]


def _wake_levit(model: Any) -> None:
    """Sets gamma to 1 where LeViT shrinks its map.

    kecam starts those batch normalizations at gamma = 0, as if a shortcut ran beside them. None
    does: all features would be 0, and no gradient would pass.
    """
    for layer in model.layers:
        gamma = getattr(layer, "gamma", None)
        if gamma is not None and "down" in layer.name:
            layer.set_weights([gamma.numpy() * 0 + 1, *layer.get_weights()[1:]])


def _calm_resmlp(model: Any, gamma: float) -> None:
    """Sets what the branches of ResMLP are scaled by to what the paper starts from.

    kecam starts at 1: the signal then grows with depth, in 36 blocks to more than float16 holds.
    """
    for layer in model.layers:
        if "_gamma_" in layer.name:
            layer.set_weights([np.full_like(weight, gamma) for weight in layer.get_weights()])


RECORDS: tuple[Backbone, ...] = tuple(
    Backbone(
        name=name,
        library="kecam",
        builder="tfgraphreg.backbones.kecam:build",
        arguments={"network": network, "release": release, **_SIZES.get(name, {})},
        width=width,
        parameters=parameters,
        default_size=size,
        family=family,
        paper=_PAPERS[family],
        pretrained=name not in _SIZES,
        **_FAMILIES[family],
    )
    for name, family, network, release, width, parameters, size in _ROWS
)
