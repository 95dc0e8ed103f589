"""What a run does, as one frozen value that is checked at birth.

The same dataclass makes the command line's flags, the YAML of `--config` and the
`config.json` of a run folder. Each field's `help` is what `--help` prints.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from tfgraphreg import config_checks
from tfgraphreg.config_checks import flag, nearest
from tfgraphreg.errors import ConfigError
from tfgraphreg.reading import read_json

PAIRINGS = ("uniform", "weight")
SAMPLINGS = ("top", "uniform", "weight")
STRATEGIES = ("auto", "mirrored", "none")
REGULARIZED = ("embedding", "logits")
NEIGHBOR_MODES = ("packed", "gathered", "paired", "bank")
SCHEDULES = ("cosine", "fixed")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
PACKERS = ("auto", "nsl", "stream")
AUGMENTATIONS = ("none", "flip", "flip_shift", "rand_augment", "mixup", "cutmix")
OBJECTIVES = (
    "auto",
    "softmax",
    "sigmoid",
    "triplet_semihard",
    "lifted_structured",
    "npairs",
    "contrastive",
)
GRAPH_KINDS = ("knn", "mutual", "threshold", "radius", "class", "random")
SEARCHES = ("auto", "exact", "ivf", "hnsw")
WEIGHTINGS = ("cosine", "gaussian", "local_gaussian", "binary")
BAD_IMAGE = ("error", "skip")

# The fields that make a graph, and those that decide how it takes part in training.
GRAPH_FIELDS = (
    "graph",
    "graph_features",
    "graph_metric",
    "graph_neighbors",
    "graph_search",
    "graph_weights",
    "graph_threshold",
    "graph_radius",
    "symmetrize",
    "edge_kinds",
)
NEIGHBOR_FIELDS = (
    "regularize",
    "neighbors",
    "max_neighbors",
    "neighbor_sampling",
    "pairing",
    "pair_correction",
    "packer",
)


# A backbone that the size of the training set decides.
AUTO_BACKBONE = "auto"


def _field(default: Any, help: str, *, choices: tuple[str, ...] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the result of a run, and where it goes.

    Raises:
        ConfigError: If a value, or a combination of values, cannot work.
    """

    dataset: str = _field(
        "fashion_mnist",
        "dataset: fashion_mnist, mnist, cifar10, digits (needs no network), tfds:NAME, folder:PATH",
    )
    data_dir: str | None = _field(
        None, "folder with the data: original IDX files, archives, or a prepared TFDS folder"
    )
    limit: int | None = _field(None, "use only the first N training images, for a quick try")
    labels_per_class: int | None = _field(
        None, "keep N labels a class; the other training images stay in the graph, unlabeled"
    )
    validation_fraction: float = _field(
        0.0, "share of the training images set aside to choose the best epoch by, in [0, 1)"
    )
    on_bad_image: str = _field(
        "error", "what to do about files that are no usable image", choices=BAD_IMAGE
    )
    cache_images: bool = _field(
        False, "decode the images of a folder once into a file in the cache, not at every use"
    )
    image_size: int | None = _field(
        None, "side in pixels that the backbone sees. Default: the images' own, if it can take them"
    )

    backbone: str = _field(
        AUTO_BACKBONE,
        "network: a name that `tfgraphreg backbones` lists; auto: cnn for less than 2,000 training "
        "images, else mobilenet_v3_small_minimalistic",
    )
    weights: str = _field("none", "start weights: none, imagenet, a file, or timm:FILE.safetensors")
    embedding_dim: int = _field(64, "width of the embedding")
    # A number of stages is naturally written as one; it is kept as a word.
    freeze: str | int = _field(
        "none",
        "what keeps its start weights: none, backbone, or N: the first N of at most 5 stages, "
        "counted from the pixels. Their batch normalization uses its stored statistics",
    )
    backbone_learning_rate: float = _field(
        1.0, "learning rate of the backbone's last stage as a multiple of the head's"
    )
    stage_decay: float = _field(
        1.0, "learning rate of a stage as a multiple of that of the stage behind it, in (0, 1]"
    )
    warmup_epochs: int = _field(
        0, "epochs at the start in which the head alone is trained and the backbone stays as it is"
    )

    alpha: float = _field(0.1, "weight of the graph term; 0 is plain training")
    distance: str = _field(
        "cosine",
        "distance between an image and its neighbor: euclidean, sqeuclidean, manhattan, "
        "cosine, ...",
    )
    regularize: str = _field("embedding", "what the graph term compares", choices=REGULARIZED)
    neighbors: str = _field(
        "packed",
        "how neighbors reach a batch: packed by nsl.tools.pack_nbrs, gathered by index, "
        "paired in one batch (cost of plain training), or from a bank of embeddings",
        choices=NEIGHBOR_MODES,
    )
    max_neighbors: int = _field(1, "neighbors of an image in a batch")
    neighbor_sampling: str = _field(
        "uniform",
        "which of its neighbors an image brings along, with gathered and bank: always the top "
        "ones as packed does, or others each epoch",
        choices=SAMPLINGS,
    )
    pairing: str = _field(
        "uniform",
        "how paired picks among free neighbors: all alike, or by weight",
        choices=PAIRINGS,
    )
    pair_correction: bool = _field(
        False, "with paired: weigh edges so that all count alike, however often they are drawn"
    )
    packer: str = _field(
        "auto",
        "who packs: nsl.tools.pack_nbrs, which holds all images in memory, or the streaming "
        "packer, which writes the same examples; auto: nsl up to 256 MB of images",
        choices=PACKERS,
    )
    graph: str = _field(
        "knn", f"graph: one of {', '.join(GRAPH_KINDS)}, or a TSV or npz file of your own edges"
    )
    graph_features: str = _field(
        "pca",
        "what the graph compares: pixels, pca, patches, color, texture, shape, global, sgt, "
        "model:PATH, backbone:NAME, file:PATH (vectors of your own: .npy, .npz, .parquet)",
    )
    graph_metric: str = _field("cosine", "distance that makes the graph")
    graph_neighbors: int = _field(10, "neighbors of a node in the graph")
    graph_search: str = _field(
        "auto",
        "how neighbors are found: exact, or by inverted lists (ivf) or HNSW with a stated recall; "
        "auto: exact for small sets",
        choices=SEARCHES,
    )
    graph_weights: str = _field("cosine", "edge weights", choices=WEIGHTINGS)
    graph_threshold: float = _field(0.9, "smallest weight of an edge in a threshold graph")
    graph_radius: float | None = _field(
        None, "largest distance, by the metric, of an edge in a radius graph"
    )
    symmetrize: bool = _field(False, "add the reverse of every edge")
    edge_kinds: str = _field(
        "ll,lu,uu", "edges kept, by their ends: labeled-labeled, labeled-unlabeled, both unlabeled"
    )

    objective: str = _field(
        "auto",
        "supervised loss: softmax cross-entropy for one class an image, sigmoid cross-entropy for "
        "several (auto: the one that the labels need), or one of the extra addons",
        choices=OBJECTIVES,
    )
    augment: str = _field("none", "random changes of training images", choices=AUGMENTATIONS)
    epochs: int = _field(5, "passes over the training images")
    batch_size: int | None = _field(
        None,
        "images in a step, over all replicas; neighbors not counted. Default: 128, down to 16 if "
        "that would give less than 100 steps in all",
    )
    learning_rate: float | None = _field(None, "Adam's learning rate. Default: the backbone's own")
    schedule: str = _field("cosine", "learning rate over time", choices=SCHEDULES)
    precision: str = _field("float32", "number format of the computation", choices=PRECISIONS)
    strategy: str = _field(
        "auto",
        "auto: MirroredStrategy where there is a GPU; mirrored: over all GPUs (or logical CPUs); "
        "none: one device",
        choices=STRATEGIES,
    )
    jit_compile: bool = _field(
        False, "compile the training step with XLA; of --augment only flip can be compiled"
    )
    seed: int = _field(0, "seed of everything random; the same seed gives the same run on CPU")

    run_dir: str | None = _field(
        None, "folder of this run. Default: runs/<dataset>-<backbone>-<time>"
    )
    export_dir: str | None = _field(
        None,
        "folder of the SavedModel; an earlier model there is replaced. "
        "Default: saved_models/<run name>",
    )
    resume: bool = _field(False, "go on with a run that was interrupted")

    def __post_init__(self):
        for name, value in config_checks.plain_values(self).items():
            object.__setattr__(self, name, value)
        config_checks.check(self)

    @property
    def regularized(self) -> bool:
        """Whether there is a graph term at all."""
        return self.alpha > 0

    def result_fields(self) -> dict[str, Any]:
        """The fields that decide the result: all but places and `resume`."""
        skipped = {"run_dir", "export_dir", "resume"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in skipped}


def from_mapping(values: dict[str, Any]) -> TrainConfig:
    """A config of a mapping of field names (dashes allowed) to values.

    Raises:
        ConfigError: If a name is unknown or a value is wrong.
    """
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    values = {str(k).replace("-", "_"): v for k, v in values.items()}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            "Unknown setting in the config.", received=unknown[0], cure=nearest(unknown[0], known)
        )
    return TrainConfig(**values)


def read(path: os.PathLike[str] | str) -> TrainConfig:
    """The config of a `config.json`.

    Raises:
        ConfigError: If the file is missing or no such config.
    """
    try:
        values = read_json(path)
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as a config ({error}).") from error
    try:
        return from_mapping(values)
    except ConfigError as error:
        # Who evaluates a run gave no flags, and could not tell where the wrong value stands.
        raise ConfigError(
            f"{path}: {error.rule}", received=error.received, cure=error.cure
        ) from error


def differences(one: TrainConfig, other: TrainConfig) -> list[str]:
    """What decides the result and differs, as sentences like `--alpha: 0.1 against 0.2`."""
    left, right = one.result_fields(), other.result_fields()
    return [f"{flag(k)}: {left[k]} against {right[k]}" for k in left if left[k] != right[k]]
