"""The commands that hand a finished run over to other programs: export, embeddings, serve."""

from __future__ import annotations

import contextlib
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

SERVE_EXAMPLES = """
examples:
  tfgraphreg serve --run runs/NAME                       then open http://127.0.0.1:8501/
  curl http://127.0.0.1:8501/v1/models/NAME              is it there?
  curl http://127.0.0.1:8501/v1/models/NAME:predict -d '{"instances": [{"b64": "..."}]}'
  curl http://127.0.0.1:8501/v1/models/NAME:search -d '{"instances": [{"b64": "..."}], "k": 3}'

The form is TensorFlow Serving's REST: an instance is an image file as base64, or pixels as nested
lists of 0 to 255. The page takes an image that is dropped on it. Only programs of this machine are
answered.
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


def serve_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `serve`."""
    from tfgraphreg.serving import PORT

    add_run(parser)
    parser.add_argument("--port", type=int, default=PORT, help="port; 0 takes a free one")


def serve(args: Any, progress: Progress) -> int:
    """Runs `serve` until it is stopped, and returns its exit status."""
    from tfgraphreg.recipes.server import check_server, serve_run
    from tfgraphreg.runs.folder import read_run

    check_server(args.port)
    run = read_run(args.run)
    start_tensorflow()
    # Ctrl-C is how it ends: uvicorn closes what is open, and hands the signal on.
    with contextlib.suppress(KeyboardInterrupt):
        serve_run(run, port=args.port, progress=progress)
    return 0
