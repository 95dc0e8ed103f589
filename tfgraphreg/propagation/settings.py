"""How labels from the graph take part in a run."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tfgraphreg.settings import Effect, Settings, at_least, refuse, setting

OFF = "none"
METHOD_NAMES = ("laplace", "spreading", "poisson", "poisson-reweighted", "poisson-mbo")
KNOWN_SIZES = ("equal", "labeled")
CLASS_SIZES = ("unknown", *KNOWN_SIZES)
FEATURE_CLASSIFIERS = (OFF, "kernel_ridge")
PSEUDO_LABEL_WEIGHTS = ("equal", "certainty")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PropagationSettings(Settings):
    """Pseudo-labels: labels of unlabeled images, propagated over the graph and trained on."""

    propagate: str = setting(
        OFF,
        "label the unlabeled images over the graph by this method and train on these labels too",
        choices=(OFF, *METHOD_NAMES),
    )
    class_sizes: str = setting(
        "unknown",
        "what is known beforehand of the sizes of the classes: nothing, that all are equally "
        "large, or that they are as among the labeled images",
        choices=CLASS_SIZES,
    )
    feature_classifier: str = setting(
        OFF,
        "ask also a classifier that is trained on the graph's features of the labeled images",
        choices=FEATURE_CLASSIFIERS,
    )
    pseudo_label_weights: str = setting(
        "equal",
        "how much a pseudo-label counts: all alike, or by certainty (1 - entropy) and so that all "
        "classes weigh the same",
        choices=PSEUDO_LABEL_WEIGHTS,
    )
    rebuild_graph_every: int = setting(
        0,
        "epochs after which the graph is built again, from its features and what the network "
        "says, and labels are propagated again; the learning rate then starts over. 0: never",
    )

    EFFECTS: ClassVar[tuple[Effect, ...]] = (
        Effect(
            ("class_sizes", "feature_classifier", "pseudo_label_weights", "rebuild_graph_every"),
            lambda all: all.propagate != OFF,
            "`propagate` other than none",
        ),
    )

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: If a value is out of range, or the method needs class sizes.
        """
        at_least(self, 0, "rebuild_graph_every")
        if self.propagate == "poisson-mbo" and self.class_sizes == "unknown":
            refuse(
                "class_sizes",
                "must be known for `propagate=poisson-mbo`",
                self.class_sizes,
                "Use `class_sizes=equal` or `class_sizes=labeled`, or another method.",
            )
