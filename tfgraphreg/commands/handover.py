"""The commands that hand a finished run over to other programs: export, embeddings."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from tfgraphreg.commands.results import add_run, start_tensorflow
from tfgraphreg.progress import Progress

EXPORT_EXAMPLES = """
examples:
  tfgraphreg export --run runs/NAME --export-format tflite
  tfgraphreg export --run runs/NAME --export-format tflite_int8,onnx
  tfgraphreg train --dataset digits --export-format tflite,onnx   at the end of training

The files lie in the SavedModel's folder: model.tflite, model_float16.tflite, model_int8.tflite,
model.onnx. Each takes `image`, uint8 [B, height, width, channels], and gives `probabilities` and
`embedding`; tfgraphreg.json there names the classes. How far answers agree with the SavedModel's,
and how long one takes, is in the run's metrics.json under exports.
"""

EMBEDDINGS_EXAMPLES = """
examples:
  tfgraphreg embeddings --run runs/NAME                  embeddings.parquet
  tfgraphreg embeddings --run runs/NAME --out e.npz --edges edges.tsv
  tfgraphreg train --dataset fashion_mnist --graph-features file:embeddings.parquet
                                                         a graph by this embedding

a row for each image of train, validation and test:
  id, split, label       label is empty where it is unknown
  given                  whether training used the label
  prediction, probability  the likeliest class (of several an image: those of at least 0.5)
  probabilities, vector  a list of numbers: of each class, and the embedding
--edges, a row for each direction of an edge of the training graph: source, target, weight
"""


def export_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `export`."""
    from tfgraphreg.formats.catalog import FORMATS

    add_run(parser)
    parser.add_argument(
        "--export-format",
        type=str,
        required=True,
        help=f"formats, commas between: {', '.join(FORMATS)} (extras tflite, onnx)",
    )


def export(args: Any, progress: Progress) -> int:
    """Runs `export` and returns its exit status."""
    from tfgraphreg.formats.catalog import check_formats, named_formats
    from tfgraphreg.runs.folder import read_run

    names = named_formats(args.export_format)
    check_formats(names)
    run = read_run(args.run)
    start_tensorflow()
    from tfgraphreg.recipes.exports import export_run

    export_run(run, names, progress=progress)
    return 0


def embeddings_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `embeddings`."""
    add_run(parser)
    parser.add_argument(
        "--out", type=str, default="embeddings.parquet", help="file, .parquet or .npz"
    )
    parser.add_argument(
        "--edges", type=str, default=None, help="also the training graph: file, .parquet or .tsv"
    )


def embeddings(args: Any, progress: Progress) -> int:
    """Runs `embeddings` and returns its exit status."""
    from tfgraphreg.recipes.embeddings import check_files, write_embeddings
    from tfgraphreg.runs.folder import read_run

    check_files(args.out, args.edges)
    run = read_run(args.run)
    start_tensorflow()
    write_embeddings(run, args.out, edges=args.edges, progress=progress)
    return 0
