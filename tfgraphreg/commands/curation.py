"""The commands that tell what to do to the data: suggest and audit."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from tfgraphreg.commands import show
from tfgraphreg.commands.labels import add_graph_flags, graph_config
from tfgraphreg.commands.results import start_tensorflow
from tfgraphreg.config import TrainConfig
from tfgraphreg.progress import Progress

AUDIT_EXAMPLES = """
examples:
  tfgraphreg audit --dataset folder:photos               then open audit/audit.html
  tfgraphreg audit --dataset fashion_mnist --images train
  tfgraphreg audit --dataset folder:photos --graph-features model:saved_models/NAME
                                                         by the embedding of a trained network
  tfgraphreg audit --dataset folder:photos --graph-features file:vectors.npz
  tfgraphreg train --dataset folder:photos --drop audit/audit.csv

audit.csv, a row for each finding:
  id, split                the image
  issue                    label_error, leak (a training image with a copy outside the training
                           images), exact_duplicate, near_duplicate, outlier, isolated, hub
  score                    within an issue, the larger the surer
  label, suggested         its class, and of a label error the one that fits better
  other                    of a copy, the image that stays
  action                   drop: `train --drop` leaves the image out; check: look at it. Write
                           drop or keep as you decide
"""


SUGGEST_EXAMPLES = """
examples, a loop until the labels are enough:
  tfgraphreg suggest --dataset folder:photos --n 20      photos/CLASS/... and photos/_unlabeled/...;
                                                         open suggest/label.html, label, save
  tfgraphreg suggest --dataset folder:photos --labels labels.csv --n 20
  tfgraphreg train --dataset folder:photos --labels labels.csv --recipe few-labels

  tfgraphreg suggest --dataset fashion_mnist --unlabeled --n 10
                                                         from no label at all
  tfgraphreg suggest --dataset fashion_mnist --labels labels.csv --method margin

label.html shows one image after the other; a key is a class. What it saves, labels.csv (id, label),
holds the labels known before too. suggestions.csv: id, rank, reason; sheet.png: all of them.
"""


def suggest_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `suggest`."""
    from tfgraphreg.suggestion import METHODS

    add_graph_flags(parser)
    group = parser.add_argument_group("suggest")
    group.add_argument("--n", type=int, default=20, help="images to choose")
    group.add_argument(
        "--method",
        type=str,
        default="auto",
        help=f"{', '.join(METHODS)}. auto: typical, one from each large group without a label; "
        "margin, entropy: of whose class the graph is least sure; random and balanced to compare",
    )
    group.add_argument(
        "--unlabeled", action="store_true", help="begin without any label that the dataset has"
    )
    group.add_argument("--out", type=str, default="suggest", help="folder for the results")


def suggest(args: Any, progress: Progress) -> int:
    """Runs `suggest` and returns its exit status."""
    config = _ready(args)
    from tfgraphreg.recipes.suggest import suggest_images

    found = suggest_images(
        config,
        args.n,
        method=args.method,
        unlabeled=args.unlabeled,
        out=args.out,
        progress=progress,
    )
    print(f"{len(found.found.items)} images to label ({found.found.method}); open label.html")
    return 0


def audit_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `audit`."""
    add_graph_flags(parser)
    group = parser.add_argument_group("audit")
    group.add_argument(
        "--images",
        type=str,
        default=None,
        help="all: of every split, and copies across them; train: training images only. Default: "
        "all, or train where edges or vectors come from a file",
    )
    group.add_argument("--out", type=str, default="audit", help="folder for the results")


def audit(args: Any, progress: Progress) -> int:
    """Runs `audit` and returns its exit status."""
    config = _ready(args)
    from tfgraphreg.recipes.audit import audit_dataset

    audited = audit_dataset(config, out=args.out, images=args.images, progress=progress)
    show.audited(audited)
    return 0


def _ready(args: Any) -> TrainConfig:
    """The config, its names checked before TensorFlow is loaded."""
    from tfgraphreg.recipes.train import check_names

    config = graph_config(args)
    check_names(config)
    start_tensorflow()
    return config
