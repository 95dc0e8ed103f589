"""The commands about finished runs: evaluate, embed, search, predict, compare."""

from __future__ import annotations

import dataclasses
from typing import Any

from jsonargparse import ArgumentParser

from tfgraphreg import compat
from tfgraphreg.commands import show
from tfgraphreg.progress import Progress

EVALUATE_EXAMPLES = """
examples:
  tfgraphreg evaluate --run runs/NAME                    all numbers and figures
  tfgraphreg evaluate --run runs/NAME --probes           also what simple classifiers read off it
  tfgraphreg evaluate --run runs/NAME --within all       each image among all the others
  tfgraphreg evaluate --run runs/NAME --distance euclidean  search by another distance
  tfgraphreg evaluate --run runs/NAME --only-class person   one class of a run of boxes
"""

EMBED_EXAMPLES = """
examples:
  tfgraphreg embed --run runs/NAME                       test images, beside their raw pixels
  tfgraphreg embed --run runs/NAME --dim 3               to turn in report.html
  tfgraphreg embed --run runs/NAME --source graph        the training graph itself
  tfgraphreg embed --run runs/NAME --onto-train          where test images fall among training ones
"""

SEARCH_EXAMPLES = """
examples:
  tfgraphreg search --run runs/NAME shoe.png bag.jpg     the five nearest training images of each
  tfgraphreg search --run runs/NAME --add mine/1.png mine/2.png  more images, without building anew
  tfgraphreg search --run runs/NAME --add mine --label hat    a new class, without training
  tfgraphreg search --run runs/NAME --reject 0.95 shoe.png  unknown, where nothing is near enough
  tfgraphreg search --run runs/NAME --reject 0.95 --unknown others  how many unknown ones pass
  tfgraphreg search --run runs/NAME --method hnsw shoe.png  approximate, with its measured recall
  tfgraphreg search --run runs/NAME --region 2 photo.jpg   by a detector: regions like the second
"""

PREDICT_EXAMPLES = """
examples:
  tfgraphreg predict --run runs/NAME photo.jpg           the likeliest classes of a classifier
  tfgraphreg predict --model saved_models/NAME *.jpg     by a SavedModel of any task
  tfgraphreg predict --run runs/NAME --out found *.jpg   boxes or masks, drawn: a picture a file
  tfgraphreg predict --run runs/NAME --least-score 0.1 photo.jpg   less certain boxes too

Boxes are in pixels of the file as it is stored (a camera's orientation tag is not applied); x grows
to the right, y downward. --out writes NAME_boxes.png, or NAME_overlay.png and NAME_mask.png: a gray
image of the file's size that holds 0 for the background and 1 + class number.
"""

COMPARE_EXAMPLES = """
examples:
  tfgraphreg compare runs/one runs/two                   these runs
  tfgraphreg compare runs --out comparison               all runs in a folder
  tfgraphreg compare --sweep sweep.yaml                  make a grid of runs, then compare them

sweep.yaml, a value or a list for each setting of a run; the same command goes on after a stop:
  out: runs/digits
  dataset: digits
  epochs: 1
  alpha: [0, 0.1]
  distance: [cosine, euclidean]
  seed: [0, 1, 2]
"""


def start_tensorflow(*, devices: bool = True) -> None:
    """Starts TensorFlow with NSL, quietly, before a command needs them.

    Args:
        devices: Whether to start its devices too.
    """
    with compat.quiet_start():
        compat.load_nsl()
        if devices:
            compat.tf.config.list_logical_devices()


def evaluate_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `evaluate`."""
    add_run(parser)
    parser.add_argument(
        "--distance",
        type=str,
        default=None,
        help="distance by which the embedding is searched. Default: the run's",
    )
    parser.add_argument(
        "--within",
        type=str,
        default=None,
        help="also search every image among the others of: train, test, all",
    )
    parser.add_argument(
        "--probes",
        action="store_true",
        help="also train simple classifiers on the frozen embedding, three seeds each",
    )
    parser.add_argument(
        "--only-class",
        type=str,
        default=None,
        help="of a run of boxes: judge this class alone, such as person. Default: as trained",
    )
    parser.add_argument("--no-figures", action="store_true", help="numbers only")


def add_run(parser: ArgumentParser) -> None:
    """Adds the flag that names a run."""
    parser.add_argument("--run", type=str, required=True, help="run folder, such as runs/NAME")


def evaluate(args: Any, progress: Progress) -> int:
    """Runs `evaluate` and gives its exit status."""
    from tfgraphreg.distances import DISTANCES
    from tfgraphreg.runs.folder import read_run

    if args.distance is not None:
        DISTANCES.get(args.distance)
    run = read_run(args.run)
    start_tensorflow()
    from tfgraphreg.recipes.evaluate import evaluate_run

    found = evaluate_run(
        run,
        distance=args.distance,
        within=args.within,
        probes=args.probes,
        only_class=args.only_class,
        figures=not args.no_figures,
        progress=progress,
    )
    show.evaluated(found)
    return 0


def embed_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `embed`."""
    add_run(parser)
    parser.add_argument("--dim", type=int, default=2, help="dimensions of the picture: 2 or 3")
    parser.add_argument(
        "--variant",
        type=str,
        default="neighbors",
        help="kind of minimum-distortion embedding: neighbors, standardized, quadratic",
    )
    parser.add_argument(
        "--source",
        type=str,
        default="embedding",
        help="what is drawn: the neighbors in the embedding (beside those of raw pixels), or the "
        "run's training graph",
    )
    parser.add_argument("--split", type=str, default="test", help="images drawn: test or train")
    parser.add_argument("--limit", type=int, default=10_000, help="at most N images, by chance")
    parser.add_argument(
        "--onto-train",
        action="store_true",
        help="place test images among training images that stay where they are",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of choice and picture")


def embed(args: Any, progress: Progress) -> int:
    """Runs `embed` and gives its exit status."""
    from tfgraphreg.recipes.embed import EmbedOptions, embed_run
    from tfgraphreg.runs.folder import read_run

    names = [field.name for field in dataclasses.fields(EmbedOptions)]
    options = EmbedOptions(**{name: getattr(args, name) for name in names})
    run = read_run(args.run)
    start_tensorflow()
    embed_run(run, options, progress=progress)
    return 0


def search_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `search`."""
    parser.add_argument("images", type=str, nargs="*", help="image files to search with")
    add_run(parser)
    parser.add_argument("--k", type=int, default=5, help="images found for each query")
    parser.add_argument(
        "--method",
        type=str,
        default=None,
        help="exact (default), or ivf or hnsw: fast, approximate",
    )
    parser.add_argument("--distance", type=str, default=None, help="cosine or euclidean")
    parser.add_argument(
        "--add",
        type=str,
        nargs="+",
        default=[],
        help="image files to add to the index first, or folders with a subfolder for each class",
    )
    parser.add_argument("--label", type=str, default=None, help="the class of all that is added")
    parser.add_argument(
        "--labels", type=str, default=None, help="CSV file (id, label): classes of what is added"
    )
    parser.add_argument(
        "--rebuild", action="store_true", help="build the index again; added images are kept"
    )
    parser.add_argument(
        "--region",
        type=int,
        default=None,
        help="of a run of boxes: search with the Nth region that `predict` lists. Default: the "
        "first",
    )
    parser.add_argument(
        "--reject",
        type=float,
        default=None,
        metavar="SHARE",
        help="say unknown of images too far from all others: farther than this share of validation "
        "or test images lie, such as 0.95. The index keeps it; 1 takes it away",
    )
    parser.add_argument(
        "--unknown",
        type=str,
        nargs="+",
        default=[],
        help="image files of no known class, or folders of them: how many are said to be unknown",
    )


def search(args: Any, progress: Progress) -> int:
    """Runs `search` and gives its exit status."""
    from tfgraphreg.runs.folder import read_run

    run = read_run(args.run)
    start_tensorflow()
    from tfgraphreg.recipes.find import search_run

    answers = search_run(
        run,
        args.images,
        k=args.k,
        method=args.method,
        distance=args.distance,
        add=args.add,
        label=args.label,
        labels=args.labels,
        rebuild=args.rebuild,
        region=args.region,
        reject=args.reject,
        unknown=args.unknown,
        progress=progress,
    )
    show.searched(answers)
    return 2 if any(answer.error for answer in answers) else 0


def predict_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `predict`."""
    parser.add_argument("images", type=str, nargs="+", help="image files")
    parser.add_argument("--run", type=str, default=None, help="run folder whose model is asked")
    parser.add_argument(
        "--model", type=str, default=None, help="SavedModel folder. Default: the newest"
    )
    parser.add_argument(
        "--top",
        type=int,
        default=None,
        help="of a classifier: classes shown. Default: 3",
    )
    parser.add_argument(
        "--least-score",
        type=float,
        default=None,
        help="of a model of boxes: lowest score shown, 0 to 1. Default: 0.3",
    )
    parser.add_argument(
        "--out", type=str, default=None, help="of a model of boxes or masks: folder for pictures"
    )


def predict(args: Any, progress: Progress) -> int:
    """Runs `predict` and gives its exit status."""
    from tfgraphreg.runs.model_folder import model_folder

    model = model_folder(args.run, args.model)
    start_tensorflow()
    from tfgraphreg.recipes import predict as recipe

    found = recipe.predict(
        args.images,
        model,
        top=args.top,
        least_score=args.least_score,
        out=args.out,
        progress=progress,
    )
    show.predicted(found)
    return 2 if any(each.error for each in found) else 0


def compare_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `compare`."""
    parser.add_argument("runs", type=str, nargs="*", help="run folders, or folders of them")
    parser.add_argument("--sweep", type=str, default=None, help="YAML file: a grid of runs to make")
    parser.add_argument(
        "--out",
        type=str,
        default=None,
        help="folder for table.csv, table.md and report.html. Default: the sweep's, or comparison",
    )


def compare(args: Any, progress: Progress) -> int:
    """Runs `compare` and gives its exit status."""
    from tfgraphreg.recipes.page import compare_runs

    found = compare_runs(args.runs, sweep=args.sweep, out=args.out)
    show.compared(found)
    return 2 if found.problems else 0
