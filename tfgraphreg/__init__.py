"""Image embeddings by graph regularization, in Keras.

The names below are the public surface; each is loaded when it is first used, so that
`import tfgraphreg` brings neither TensorFlow nor anything else that takes a while.
"""

import importlib
import logging
import warnings
from typing import Any

from tfgraphreg.compat import prepare_environment

__version__ = "0.1.0"

# The library reports by logging and prints nothing; the command line shows its messages.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Before anything touches tf.keras, which must be the Keras 2 API; keras itself may be Keras 3.
prepare_environment()

_HOMES = {
    # settings, and the whole way from data to an exported model
    "TrainConfig": "tfgraphreg.config",
    "recipe": "tfgraphreg.config",
    "train": "tfgraphreg.recipes.train",
    # data, features, graphs
    "load_dataset": "tfgraphreg.data.catalog",
    "Dataset": "tfgraphreg.data.dataset",
    "Split": "tfgraphreg.data.dataset",
    "LocalSplit": "tfgraphreg.data.local",
    "Objects": "tfgraphreg.data.local",
    "extract_features": "tfgraphreg.features.registry",
    "fit_patches": "tfgraphreg.features.patches",
    "SimilarityGraph": "tfgraphreg.graph.similarity",
    "build_graph": "tfgraphreg.graph.build",
    "knn_graph": "tfgraphreg.graph.knn",
    "read_tsv": "tfgraphreg.graph.tsv",
    "write_tsv": "tfgraphreg.graph.tsv",
    "Distance": "tfgraphreg.distances",
    "register_distance": "tfgraphreg.distances",
    # labels over a graph
    "propagate": "tfgraphreg.propagation",
    "Propagation": "tfgraphreg.propagation",
    "complete_masks": "tfgraphreg.propagation",
    "CompletedMasks": "tfgraphreg.propagation",
    # what is wrong with images and labels
    "find_label_errors": "tfgraphreg.audit",
    "find_duplicates": "tfgraphreg.audit",
    # networks and their training
    "list_backbones": "tfgraphreg.backbones.catalog",
    "build_backbone": "tfgraphreg.backbones.build",
    "build_classifier": "tfgraphreg.model.classifier",
    "GraphRegularization": "tfgraphreg.model.regularization",
    "with_neighbors": "tfgraphreg.neighbors.dataset",
    "Packed": "tfgraphreg.neighbors.modes",
    "Gathered": "tfgraphreg.neighbors.modes",
    "Paired": "tfgraphreg.neighbors.modes",
    "Bank": "tfgraphreg.neighbors.modes",
    "pack_neighbors": "tfgraphreg.neighbors.packing",
    # what was learned
    "classification_report": "tfgraphreg.evaluation.classification",
    "retrieval_report": "tfgraphreg.evaluation.retrieval",
    "Predictor": "tfgraphreg.export",
    "MaskPredictor": "tfgraphreg.export",
    "BoxPredictor": "tfgraphreg.export",
    "Searcher": "tfgraphreg.visualize.search",
    # errors
    "TFGraphRegError": "tfgraphreg.errors",
}

# Earlier names, which the next version drops.
_RENAMED = {
    "load": "load_dataset",
    "extract": "extract_features",
    "build": "build_graph",
    "pack": "pack_neighbors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(
            f"tfgraphreg.{name} is now tfgraphreg.{new}; the old name goes with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        name = new
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
