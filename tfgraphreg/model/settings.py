"""The network of a run, and its graph term."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from tfgraphreg.settings import GIVEN, Effect, Settings, at_least, refuse, setting

# The backbone is chosen by the size of the training set.
AUTO_BACKBONE = "auto"
REGULARIZED = ("embedding", "logits")
TASKS = ("classify", "segment", "detect")
_ALPHA = 0.1
CLASS_WEIGHTS = ("equal", "balanced")
GRAPH_LOSSES = ("pull", "contrast")
OBJECTIVES = (
    "auto",
    "softmax",
    "sigmoid",
    "triplet_semihard",
    "lifted_structured",
    "npairs",
    "contrastive",
)


def default_alpha(task: str) -> float:
    """The weight of the graph term where none is given."""
    return _ALPHA if task == "classify" else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings(Settings):
    """What the network of a run learns to say."""

    task: str = setting(
        "classify",
        "what is learned: classes of images; segment: the class of every pixel, from masks; "
        "detect: boxes and classes of objects, from boxes",
        choices=TASKS,
    )
    class_weights: str = setting(
        "equal",
        "with `task=segment`, how much a pixel counts in the loss: all alike, or by one over the "
        "square root of its class's share of the pixels",
        choices=CLASS_WEIGHTS,
    )

    crop_epochs: int | None = setting(
        None,
        "with `task=segment`, epochs at the start that train on parts of the images, of two thirds "
        "of their side, at random places; the last epoch is one of whole images. Default: three "
        "epochs of five; none where an image or its network does not allow it",
    )
    only_class: str | None = setting(
        None, "with `task=detect`, the one class that is measured, such as person. Default: all"
    )

    EFFECTS: ClassVar[tuple[Effect, ...]] = (
        Effect(("only_class",), lambda all: all.task == "detect", "`task=detect`"),
        # Regions find their neighbors in a bank of their own.
        Effect(
            ("neighbors", "neighbor_sampling", "pairing", "pair_correction", "graph_loss"),
            lambda all: all.task != "detect",
            "`task=classify` or `task=segment`",
        ),
        Effect(
            ("class_weights", "crop_epochs"),
            lambda all: all.task == "segment",
            "`task=segment`",
        ),
        # Settings of other rooms too: what concerns one class, or several, of a whole image.
        Effect(
            (
                "labels",
                "labels_per_class",
                "objective",
                "labeled_batch",
                "passes_per_epoch",
                "augment",
                "propagate",
                "packer",
                "regularize",
                "relabel",
                "export_format",
            ),
            lambda all: all.task == "classify",
            "`task=classify`",
        ),
    )

    def check(self) -> None:
        """Checks the number of epochs.

        Raises:
            ConfigError: If it is below 0.
        """
        at_least(self, 0, "crop_epochs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSettings(Settings):
    """The network of a run, and which of its weights learn at what rate."""

    backbone: str = setting(
        AUTO_BACKBONE,
        "network: a name that `tfgraphreg backbones` lists; auto: cnn for less than 2,000 training "
        "images, else mobilenet_v3_small_minimalistic; for parts of images cnn_pyramid",
    )
    weights: str = setting(
        "none",
        "start weights: none, imagenet, a file, timm:FILE.safetensors, or run:NAME, those of "
        "another run's best epoch",
    )
    embedding_dim: int = setting(64, "width of the embedding")
    # A number of stages is naturally written as one; it is kept as a word.
    freeze: str | int = setting(
        "none",
        "what keeps its start weights: none, backbone, or N: the first N of at most 5 stages, "
        "counted from the pixels. Their batch normalization uses its stored statistics",
    )
    backbone_learning_rate: float = setting(
        1.0, "learning rate of the backbone's last stage as a multiple of the head's"
    )
    stage_decay: float = setting(
        1.0, "learning rate of a stage as a multiple of that of the stage behind it, in (0, 1]"
    )
    warmup_epochs: int = setting(
        0, "epochs at the start in which the head alone is trained and the backbone stays as it is"
    )

    EFFECTS: ClassVar[tuple[Effect, ...]] = (
        Effect(
            ("backbone_learning_rate", "stage_decay", "warmup_epochs"),
            lambda all: all.freeze != "backbone",
            "a backbone that learns, so not with `freeze=backbone`",
        ),
        Effect(
            ("weights",),
            lambda all: not all.backbone.startswith(GIVEN),
            "a backbone that is named, not passed as a model",
        ),
    )

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: If a value is out of range.
        """
        at_least(self, 1, "embedding_dim")
        at_least(self, 0, "warmup_epochs")
        rate = self.backbone_learning_rate
        if not (math.isfinite(rate) and rate > 0):
            refuse("backbone_learning_rate", "must be a finite number > 0", rate, "Try 0.1.")
        if not 0 < self.stage_decay <= 1:
            refuse("stage_decay", "must be in (0, 1]", self.stage_decay, "Try 0.7.")
        if self.freeze not in ("none", "backbone") and not str(self.freeze).isdecimal():
            refuse("freeze", "must be none, backbone or a number of stages", self.freeze, "Try 2.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphTermSettings(Settings):
    """The graph term: what is compared, by which distance, and its weight."""

    # `TrainConfig` puts a number in the place of None.
    alpha: float = setting(
        None,
        "weight of the graph term; 0 is plain training. Default: 0.1, but 0 where parts of images "
        "are learned: neighbors then double the time",
    )
    distance: str = setting(
        "cosine",
        "distance between an image and its neighbor: euclidean, sqeuclidean, manhattan, "
        "cosine, ...",
    )
    regularize: str = setting("embedding", "what the graph term compares", choices=REGULARIZED)

    graph_loss: str = setting(
        "pull",
        "pull neighbors together, or contrast them with the rest of the batch, known neighbors "
        "left out",
        choices=GRAPH_LOSSES,
    )
    contrast_temperature: float = setting(0.1, "with contrast: divides the cosines, above 0")

    # The distance is also that of the retrieval metrics.
    EFFECTS: ClassVar[tuple[Effect, ...]] = (
        Effect(("regularize",), lambda all: all.alpha > 0, "`alpha` above 0"),
        Effect(
            ("graph_loss",),
            lambda all: all.alpha > 0 and all.neighbors == "paired" and all.distance == "cosine",
            "`alpha` above 0, `neighbors=paired` and `distance=cosine`",
        ),
        Effect(
            ("contrast_temperature",),
            lambda all: all.graph_loss == "contrast",
            "`graph_loss=contrast`",
        ),
    )

    @property
    def contrast(self) -> float | None:
        """The temperature of the contrast; None if neighbors are pulled."""
        return self.contrast_temperature if self.graph_loss == "contrast" else None

    def check(self) -> None:
        """Checks the weight and the temperature.

        Raises:
            ConfigError: If one is out of range or no number.
        """
        heat = self.contrast_temperature
        if not (math.isfinite(heat) and heat > 0):
            refuse("contrast_temperature", "must be a finite number > 0", heat, "Try 0.1.")
        if not math.isfinite(self.alpha) or self.alpha < 0:
            refuse("alpha", "must be a finite number >= 0", self.alpha, "Use 0 for plain training.")
