"""The networks of Keras Applications, as records.

The numbers of parameters and features were measured on the built networks; the contract test
measures them again. All of these builders exist from TensorFlow 2.15 to 2.21.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.records import Backbone
from tfgraphreg.errors import ModelError

_PAPERS = {
    "vgg": "Simonyan and Zisserman 2014, arXiv:1409.1556",
    "resnet": "He et al. 2015, arXiv:1512.03385",
    "resnet_v2": "He et al. 2016, arXiv:1603.05027",
    "resnet_rs": "Bello et al. 2021, arXiv:2103.07579",
    "densenet": "Huang et al. 2016, arXiv:1608.06993",
    "inception_v3": "Szegedy et al. 2015, arXiv:1512.00567",
    "inception_resnet_v2": "Szegedy et al. 2016, arXiv:1602.07261",
    "xception": "Chollet 2016, arXiv:1610.02357",
    "nasnet": "Zoph et al. 2017, arXiv:1707.07012",
    "mobilenet": "Howard et al. 2017, arXiv:1704.04861",
    "mobilenet_v2": "Sandler et al. 2018, arXiv:1801.04381",
    "mobilenet_v3": "Howard et al. 2019, arXiv:1905.02244",
    "efficientnet": "Tan and Le 2019, arXiv:1905.11946",
    "efficientnet_v2": "Tan and Le 2021, arXiv:2104.00298",
    "regnet_x": "Radosavovic et al. 2020, arXiv:2003.13678",
    "regnet_y": "Radosavovic et al. 2020, arXiv:2003.13678",
    "convnext": "Liu et al. 2022, arXiv:2201.03545",
}

# What a family's networks share; the newer ones scale pixels themselves.
_FAMILIES: dict[str, dict[str, Any]] = {
    "vgg": {"preprocessing": "caffe", "learning_rate": 1e-4},
    "resnet": {"preprocessing": "caffe"},
    "resnet_v2": {"preprocessing": "minus_one_to_one"},
    "resnet_rs": {"preprocessing": "none"},
    "densenet": {"preprocessing": "torch"},
    "inception_v3": {"preprocessing": "minus_one_to_one", "min_size": 75, "default_size": 299},
    "inception_resnet_v2": {
        "preprocessing": "minus_one_to_one",
        "min_size": 75,
        "default_size": 299,
    },
    "xception": {"preprocessing": "minus_one_to_one", "min_size": 71, "default_size": 299},
    "nasnet": {"preprocessing": "minus_one_to_one"},
    "mobilenet": {"preprocessing": "minus_one_to_one"},
    "mobilenet_v2": {"preprocessing": "minus_one_to_one"},
    "mobilenet_v3": {"preprocessing": "none"},
    "efficientnet": {"preprocessing": "none"},
    "efficientnet_v2": {"preprocessing": "none"},
    "regnet_x": {"preprocessing": "none"},
    "regnet_y": {"preprocessing": "none"},
    "convnext": {"preprocessing": "none", "learning_rate": 1e-4},
}

# What one network was measured to learn best with (docs/default_backbone.md).
_MEASURED: dict[str, dict[str, Any]] = {
    "mobilenet_v3_small_minimalistic": {"learning_rate": 3e-3, "enlarge_to": 64},
}

# Name, family, builder, its further arguments, features, parameters, default size.
_ROWS: list[tuple[str, str, str, dict[str, Any], int, int, int]] = [
    ("mobilenet_025", "mobilenet", "MobileNet", {"alpha": 0.25}, 256, 213072, 224),
    ("mobilenet_050", "mobilenet", "MobileNet", {"alpha": 0.5}, 512, 818592, 224),
    ("mobilenet_075", "mobilenet", "MobileNet", {"alpha": 0.75}, 768, 1816560, 224),
    ("mobilenet", "mobilenet", "MobileNet", {}, 1024, 3206976, 224),
    ("mobilenet_v2_035", "mobilenet_v2", "MobileNetV2", {"alpha": 0.35}, 1280, 396128, 224),
    ("mobilenet_v2_050", "mobilenet_v2", "MobileNetV2", {"alpha": 0.5}, 1280, 687680, 224),
    ("mobilenet_v2_075", "mobilenet_v2", "MobileNetV2", {"alpha": 0.75}, 1280, 1355424, 224),
    ("mobilenet_v2", "mobilenet_v2", "MobileNetV2", {}, 1280, 2223872, 224),
    ("mobilenet_v2_130", "mobilenet_v2", "MobileNetV2", {"alpha": 1.3}, 1664, 3721792, 224),
    ("mobilenet_v2_140", "mobilenet_v2", "MobileNetV2", {"alpha": 1.4}, 1792, 4315776, 224),
    (
        "mobilenet_v3_small_minimalistic",
        "mobilenet_v3",
        "MobileNetV3Small",
        {"minimalistic": True},
        576,
        428888,
        224,
    ),
    (
        "mobilenet_v3_small_075",
        "mobilenet_v3",
        "MobileNetV3Small",
        {"alpha": 0.75},
        432,
        573480,
        224,
    ),
    ("mobilenet_v3_small", "mobilenet_v3", "MobileNetV3Small", {}, 576, 927008, 224),
    (
        "mobilenet_v3_large_minimalistic",
        "mobilenet_v3",
        "MobileNetV3Large",
        {"minimalistic": True},
        960,
        1413208,
        224,
    ),
    (
        "mobilenet_v3_large_075",
        "mobilenet_v3",
        "MobileNetV3Large",
        {"alpha": 0.75},
        720,
        1789648,
        224,
    ),
    ("mobilenet_v3_large", "mobilenet_v3", "MobileNetV3Large", {}, 960, 2971952, 224),
    ("vgg16", "vgg", "VGG16", {}, 512, 14714688, 224),
    ("vgg19", "vgg", "VGG19", {}, 512, 20024384, 224),
    ("resnet50", "resnet", "ResNet50", {}, 2048, 23534592, 224),
    ("resnet101", "resnet", "ResNet101", {}, 2048, 42552832, 224),
    ("resnet152", "resnet", "ResNet152", {}, 2048, 58219520, 224),
    ("resnet50_v2", "resnet_v2", "ResNet50V2", {}, 2048, 23519360, 224),
    ("resnet101_v2", "resnet_v2", "ResNet101V2", {}, 2048, 42528896, 224),
    ("resnet152_v2", "resnet_v2", "ResNet152V2", {}, 2048, 58187904, 224),
    ("densenet121", "densenet", "DenseNet121", {}, 1024, 6953856, 224),
    ("densenet169", "densenet", "DenseNet169", {}, 1664, 12484480, 224),
    ("densenet201", "densenet", "DenseNet201", {}, 1920, 18092928, 224),
    ("xception", "xception", "Xception", {}, 2048, 20806952, 299),
    ("inception_v3", "inception_v3", "InceptionV3", {}, 2048, 21768352, 299),
    ("inception_resnet_v2", "inception_resnet_v2", "InceptionResNetV2", {}, 1536, 54276192, 299),
    ("efficientnet_b0", "efficientnet", "EfficientNetB0", {}, 1280, 4007548, 224),
    ("efficientnet_b1", "efficientnet", "EfficientNetB1", {}, 1280, 6513184, 240),
    ("efficientnet_b2", "efficientnet", "EfficientNetB2", {}, 1408, 7700994, 260),
    ("efficientnet_b3", "efficientnet", "EfficientNetB3", {}, 1536, 10696232, 300),
    ("efficientnet_b4", "efficientnet", "EfficientNetB4", {}, 1792, 17548616, 380),
    ("efficientnet_b5", "efficientnet", "EfficientNetB5", {}, 2048, 28340784, 456),
    ("efficientnet_b6", "efficientnet", "EfficientNetB6", {}, 2304, 40735704, 528),
    ("efficientnet_b7", "efficientnet", "EfficientNetB7", {}, 2560, 63786960, 600),
    ("efficientnet_v2_b0", "efficientnet_v2", "EfficientNetV2B0", {}, 1280, 5858704, 224),
    ("efficientnet_v2_b1", "efficientnet_v2", "EfficientNetV2B1", {}, 1280, 6860052, 240),
    ("efficientnet_v2_b2", "efficientnet_v2", "EfficientNetV2B2", {}, 1408, 8687086, 260),
    ("efficientnet_v2_b3", "efficientnet_v2", "EfficientNetV2B3", {}, 1536, 12821406, 300),
    ("efficientnet_v2_s", "efficientnet_v2", "EfficientNetV2S", {}, 1280, 20177488, 384),
    ("efficientnet_v2_m", "efficientnet_v2", "EfficientNetV2M", {}, 1280, 52858356, 480),
    ("efficientnet_v2_l", "efficientnet_v2", "EfficientNetV2L", {}, 1280, 117234272, 480),
    ("convnext_tiny", "convnext", "ConvNeXtTiny", {}, 768, 27820128, 224),
    ("convnext_small", "convnext", "ConvNeXtSmall", {}, 768, 49454688, 224),
    ("convnext_base", "convnext", "ConvNeXtBase", {}, 1024, 87566464, 224),
    ("convnext_large", "convnext", "ConvNeXtLarge", {}, 1536, 196230336, 224),
    ("convnext_xlarge", "convnext", "ConvNeXtXLarge", {}, 2048, 348147968, 224),
    ("regnetx002", "regnet_x", "RegNetX002", {}, 368, 2315792, 224),
    ("regnetx004", "regnet_x", "RegNetX004", {}, 384, 4772512, 224),
    ("regnetx006", "regnet_x", "RegNetX006", {}, 528, 5667040, 224),
    ("regnetx008", "regnet_x", "RegNetX008", {}, 672, 6586656, 224),
    ("regnetx016", "regnet_x", "RegNetX016", {}, 912, 8277136, 224),
    ("regnetx032", "regnet_x", "RegNetX032", {}, 1008, 14287552, 224),
    ("regnetx040", "regnet_x", "RegNetX040", {}, 1360, 20757248, 224),
    ("regnetx064", "regnet_x", "RegNetX064", {}, 1624, 24584256, 224),
    ("regnetx080", "regnet_x", "RegNetX080", {}, 1920, 37651648, 224),
    ("regnetx120", "regnet_x", "RegNetX120", {}, 2240, 43865056, 224),
    ("regnetx160", "regnet_x", "RegNetX160", {}, 2048, 52229536, 224),
    ("regnetx320", "regnet_x", "RegNetX320", {}, 2520, 105290560, 224),
    ("regnety002", "regnet_y", "RegNetY002", {}, 368, 2793996, 224),
    ("regnety004", "regnet_y", "RegNetY004", {}, 440, 3903144, 224),
    ("regnety006", "regnet_y", "RegNetY006", {}, 608, 5446160, 224),
    ("regnety008", "regnet_y", "RegNetY008", {}, 768, 5494168, 224),
    ("regnety016", "regnet_y", "RegNetY016", {}, 888, 10313430, 224),
    ("regnety032", "regnet_y", "RegNetY032", {}, 1512, 17923338, 224),
    ("regnety040", "regnet_y", "RegNetY040", {}, 1088, 19557656, 224),
    ("regnety064", "regnet_y", "RegNetY064", {}, 1296, 29286252, 224),
    ("regnety080", "regnet_y", "RegNetY080", {}, 2016, 37163068, 224),
    ("regnety120", "regnet_y", "RegNetY120", {}, 2240, 49581544, 224),
    ("regnety160", "regnet_y", "RegNetY160", {}, 3024, 80565140, 224),
    ("regnety320", "regnet_y", "RegNetY320", {}, 3712, 141333770, 224),
    ("resnet_rs50", "resnet_rs", "ResNetRS50", {}, 2048, 33642912, 160),
    ("resnet_rs101", "resnet_rs", "ResNetRS101", {}, 2048, 61569696, 192),
    ("resnet_rs152", "resnet_rs", "ResNetRS152", {}, 2048, 84572576, 256),
    ("resnet_rs200", "resnet_rs", "ResNetRS200", {}, 2048, 91160992, 256),
    ("resnet_rs270", "resnet_rs", "ResNetRS270", {}, 2048, 127812448, 256),
    ("resnet_rs350", "resnet_rs", "ResNetRS350", {}, 2048, 161907168, 320),
    ("resnet_rs420", "resnet_rs", "ResNetRS420", {}, 2048, 189842656, 320),
    ("nasnet_mobile", "nasnet", "NASNetMobile", {}, 1056, 4232978, 224),
    ("nasnet_large", "nasnet", "NASNetLarge", {}, 4032, 84720150, 331),
]


def build(
    *, input_shape: tuple[int, int, int], weights: str | None, network: str, **arguments: Any
) -> Any:
    """Builds `network` of Keras Applications without its classifier, averaged over positions."""
    from tfgraphreg.compat import keras, tf

    builder = getattr(keras.applications, network, None)
    if builder is None:
        raise ModelError(
            f"keras.applications of TensorFlow {tf.__version__} has no {network}.",
            cure="Choose another backbone: tfgraphreg backbones.",
        )
    model = builder(
        include_top=False, weights=weights, input_shape=input_shape, pooling="avg", **arguments
    )
    if network.startswith("ResNetRS"):
        _mend_resnet_rs(model, fresh=weights is None)
    return model


def _mend_resnet_rs(model: Any, *, fresh: bool) -> None:
    """What ResNet-RS needs in order to be trained from the start, and to be used afterwards.

    Where a residual branch ends, gamma starts at 0 (Goyal et al. 2017, arXiv:1706.02677): with
    Keras' 1 the 139 blocks of ResNet-RS-420 do not learn. And statistics are averages: with
    Keras' momentum of 0 they are those of the last batch, however small that is.
    """
    from tfgraphreg.compat import keras

    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        layer.momentum = 0.9
        if fresh and layer.name.endswith("_batch_norm_3") and "stem" not in layer.name:
            gamma, *rest = layer.get_weights()
            layer.set_weights([gamma * 0, *rest])


RECORDS: tuple[Backbone, ...] = tuple(
    Backbone(
        name=name,
        library="keras.applications",
        builder="tfgraphreg.backbones.applications:build",
        arguments={"network": network, **arguments},
        width=width,
        parameters=parameters,
        family=family,
        paper=_PAPERS[family],
        pretrained=True,
        **{
            **_FAMILIES[family],
            **({"default_size": size} if size != 224 else {}),
            **_MEASURED.get(name, {}),
        },
    )
    for name, family, network, arguments, width, parameters, size in _ROWS
)
