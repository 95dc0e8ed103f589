"""The networks of `tfgraphreg.backbones.families`, as records.

A family's file imports Keras; the table of records must not. So the values of every `VARIANTS`
are kept in `own_table`, which tools/list_own_backbones.py writes and a test compares.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

from tfgraphreg.backbones.own_table import FAMILIES, ROWS
from tfgraphreg.backbones.records import Backbone

_SCALES = {
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "torch",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "minus_one_to_one",
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)): "zero_to_one",
    ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3): "dpn",
}


def load_family(module: str) -> Any:
    """Imports one file of the families, such as ``"cait"``."""
    return importlib.import_module(f"tfgraphreg.backbones.families.{module}")


def build(
    *, input_shape: tuple[int, int, int], weights: str | None, module: str, network: str
) -> Any:
    """Builds the variant `network` of the family file `module`, features pooled.

    `weights` is None: these families take weights from a timm state dict, once built.
    """
    return load_family(module).VARIANTS[network].builder(input_shape=input_shape, pooling="avg")


def load_timm(network: Any, record: Backbone, path: str) -> None:
    """Fills `network`, as `build` made it, from the safetensors file of timm's `record.timm`.

    Raises:
        DataError: If the file is missing or is not a safetensors file.
        ModelError: If it holds the weights of another model.
    """
    from tfgraphreg.backbones.families.timm_weights import load_timm_weights

    family = load_family(record.arguments["module"])
    variant = family.VARIANTS[record.arguments["network"]]
    load_timm_weights(network, path, family.timm_names(network), classifier=variant.classifier)


def record_of(module: str, variant: Any) -> Backbone:
    """The record of one entry of the `VARIANTS` of a family's file."""
    mean = tuple(round(x, 6) for x in variant.mean)
    names = {tuple(round(x, 6) for x in means): name for (means, _), name in _SCALES.items()}
    family = variant.family.lower().replace(" ", "_").replace("-", "_")
    return Backbone(
        name=variant.name.lower(),
        family=family,
        library="tfgraphreg",
        builder=f"{__name__}:build",
        arguments={"module": module, "network": variant.name},
        preprocessing=names[mean],
        width=variant.width,
        parameters=_parameters(variant),
        min_size=variant.min_size,
        default_size=variant.default_size,
        learning_rate=variant.learning_rate,
        paper=variant.paper,
        timm=variant.timm or None,
    )


def _parameters(variant: Any) -> int:
    if variant.parameters_with_classifier:
        return variant.parameters_with_classifier - variant.classifier_parameters()
    # timm has no such network: count the weights of ours.
    side = variant.default_size
    model = variant.builder(input_shape=(side, side, 3))
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _record(row: tuple[Any, ...]) -> Backbone:
    network, family, timm, preprocessing, width, parameters, *sizes, learning_rate = row
    min_size, default_size = sizes
    module, paper = FAMILIES[family]
    return Backbone(
        name=network.lower(),
        family=family,
        library="tfgraphreg",
        builder=f"{__name__}:build",
        arguments={"module": module, "network": network},
        preprocessing=preprocessing,
        width=width,
        parameters=parameters,
        min_size=min_size,
        default_size=default_size,
        learning_rate=learning_rate,
        paper=paper,
        timm=timm,
    )


RECORDS: tuple[Backbone, ...] = tuple(_record(row) for row in ROWS)
