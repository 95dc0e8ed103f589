"""What a person who fine-tunes needs: which weights stay, and which learn at what rate."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any

from tfgraphreg.backbones.records import NETWORK
from tfgraphreg.errors import ModelError

STAGES = 5


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of consecutive layers of a backbone.

    Args:
        name: ``"stage_1"`` is nearest to the pixels.
        layers: Its layers, in the order in which the network was built.
    """

    name: str
    layers: tuple[Any, ...]

    @property
    def trainable_weights(self) -> list[Any]:
        """Those weights of the stage that a gradient changes now."""
        return [weight for layer in self.layers for weight in layer.trainable_weights]


def stages(model: Any, *, count: int = STAGES) -> list[Stage]:
    """Cuts the network of a backbone into consecutive stages, from the pixels to the features.

    A new stage starts where the feature map becomes smaller, as the papers count them; of these
    places the last `count` - 1 are taken, so that what comes before counts as the stem. A network
    with fewer than two such places, such as a vision transformer, is cut into `count` runs with
    equally many layers that have weights, or as many runs as it has such layers.

    Args:
        model: What `build_backbone` returned, or any model around it or without it.
        count: The largest number of stages.

    Raises:
        ModelError: If `count` is below 1.
    """
    if count < 1:
        raise ModelError("`count` of stages must be at least 1.", received=f"count={count}")
    # Of the variables, not of the layers, which may be frozen; fixed scales of pixels do not count.
    layers = [x for x in network(model).layers if any(w.trainable for w in x.weights)]
    cuts = _shrinking(layers)[-(count - 1) :] if count > 1 else []
    if len(cuts) < min(2, count - 1):
        pieces = min(count, len(layers))
        cuts = [round(i * len(layers) / pieces) for i in range(1, pieces)]
    edges = [0, *cuts, len(layers)]
    return [
        Stage(f"stage_{number}", tuple(layers[start:end]))
        for number, (start, end) in enumerate(itertools.pairwise(edges), start=1)
    ]


def freeze(model: Any, what: str | int) -> list[str]:
    """Stops layers of the backbone from learning; whatever was frozen before learns again.

    A frozen batch normalization also uses its stored mean and variance in training, as Keras
    does it: the features of a frozen backbone do not drift.

    Args:
        model: As in `stages`.
        what: ``"none"``; ``"backbone"`` for the whole network; or N, for the first N `stages`.

    Returns:
        Names of the frozen layers that have weights.

    Raises:
        ModelError: If `what` is something else, or there are fewer stages.
    """
    parts = stages(model)
    frozen = check_freeze(what, count=len(parts))
    body = network(model)
    body.trainable = True
    names = []
    for stage in parts[:frozen]:
        for layer in stage.layers:
            layer.trainable = False
            names.append(layer.name)
    return names


def check_freeze(what: str | int, *, count: int = STAGES) -> int:
    """The number of stages, from 0 to `count`, that `what` means; see `freeze`.

    Raises:
        ModelError: If it means none.
    """
    words: dict[str | int, int] = {"none": 0, "backbone": count}
    number = words.get(what, what)
    if isinstance(number, str) and re.fullmatch(r"[0-9]+", number):
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= count:
        raise ModelError(
            f"`freeze` must be none, backbone or a number of stages from 0 to {count}.",
            received=f"freeze={what!r}",
        )
    return number


def learning_rate_factors(
    model: Any, *, backbone: float = 1.0, decay: float = 1.0
) -> list[tuple[Any, float]]:
    """Pairs every trainable weight of the backbone with a factor for its learning rate.

    The last stage learns at `backbone` times the head's rate, the one before at `decay` times
    that, and so on: layers near the pixels, whose features serve any task, move least (Howard and
    Ruder 2018, arXiv:1801.06146).

    Args:
        model: As in `stages`.
        backbone: Above 0.
        decay: Above 0, at most 1; 1 trains the whole backbone at one rate.

    Raises:
        ModelError: If a number is out of range.
    """
    if not (math.isfinite(backbone) and backbone > 0):
        raise ModelError(
            "`backbone`, a multiple of the learning rate, must be above 0.",
            received=f"backbone={backbone}",
        )
    if not 0 < decay <= 1:
        raise ModelError(
            "`decay` of the learning rate must be above 0 and at most 1.", received=f"decay={decay}"
        )
    return [
        (weight, backbone * decay**distance)
        for distance, stage in enumerate(reversed(stages(model)))
        for weight in stage.trainable_weights
    ]


def network(model: Any) -> Any:
    """The network itself inside what `build_backbone` returned, or inside a model around that."""
    found = _find(model)
    return model if found is None else found


def _find(model: Any) -> Any:
    for layer in getattr(model, "layers", ()):
        inner = layer if layer.name == NETWORK else _find(layer)
        if inner is not None and hasattr(inner, "layers"):
            return inner
    return None


def _shrinking(layers: list[Any]) -> list[int]:
    """Positions at which the map is smaller than all maps before."""
    smallest, cuts = None, []
    for position, layer in enumerate(layers):
        shape = getattr(layer, "output_shape", None)
        if not (isinstance(shape, tuple) and len(shape) == 4 and shape[1]):
            continue
        if shape[1] == 1 and _height(layer.input_shape) == 1:  # Squeeze and excitation.
            continue
        # Keras sorts the layers of a functional model by depth, shortcuts first: only a map
        # smaller than every one before marks a new stage.
        if smallest is not None and shape[1] < smallest:
            cuts.append(position)
        smallest = shape[1] if smallest is None else min(smallest, shape[1])
    return cuts


def _height(shape: Any) -> int | None:
    return shape[1] if isinstance(shape, tuple) and len(shape) == 4 else None
