"""Measures which networks convert to TFLite and ONNX, and how far answers agree; docs/exports.md.

    python tools/measure_exports.py                  # the smallest network of each family
    python tools/measure_exports.py --missing        # goes on where it stopped
    python tools/measure_exports.py --only vit beit  # some families or networks

Weights are random; batch normalization takes the averages of the images, and the class layer is
scaled so that logits spread by 3: else all probabilities would be alike and agree whatever a
converter does. The images are 200 of Fashion-MNIST's test
images, at the smallest size that the network takes. Each network has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tfgraphreg.backbones.catalog import BACKBONES, smallest_networks  # noqa: E402
from tfgraphreg.benchmark.results import commit, fill_measured  # noqa: E402
from tfgraphreg.cli import exit_status  # noqa: E402
from tfgraphreg.errors import TFGraphRegError  # noqa: E402
from tfgraphreg.formats import FORMATS  # noqa: E402
from tfgraphreg.storage import write_json  # noqa: E402

IMAGES = 200
SPREAD = 3.0
CLASSES = 10
STORE = ROOT / "docs" / "exports.json"
PAGE = ROOT / "docs" / "exports.md"


def measure(name: str, names: list[str]) -> dict[str, Any]:
    """The rows of one network by format; what it cannot be converted to has an `error`."""
    import numpy as np

    from tfgraphreg.backbones.build import build_backbone
    from tfgraphreg.compat import keras
    from tfgraphreg.data.catalog import load_dataset
    from tfgraphreg.export import Predictor, export
    from tfgraphreg.model.classifier import EMBEDDING, LOGITS, build_classifier, infer
    from tfgraphreg.recipes.exports import EXACT_WITHIN, converted, milliseconds, size_of
    from tfgraphreg.training.batch_norm import BatchNormAverages

    keras.utils.set_random_seed(0)
    images = np.asarray(load_dataset("fashion_mnist").test.images[:IMAGES])
    backbone = build_backbone(name, input_shape=images.shape[1:])
    model = build_classifier(backbone, embedding_dim=64, num_classes=CLASSES)
    BatchNormAverages(model, images, batch_size=IMAGES).measure()
    embedding = infer(model, images)[EMBEDDING]
    kernel, bias = model.get_layer(LOGITS).get_weights()
    logits = embedding @ kernel
    scale = SPREAD / max(float(logits.std(axis=0).mean()), 1e-30)
    model.get_layer(LOGITS).set_weights([kernel * scale, bias - scale * logits.mean(axis=0)])
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        export(model, folder + "/model", class_names=[str(c) for c in range(CLASSES)])
        predictor = Predictor(folder + "/model")
        expected = predictor(images)["probabilities"]
        rows["saved_model"] = {
            "bytes": size_of(predictor.folder),
            "milliseconds": milliseconds(predictor, images),
            "largest_probability": float(expected.max(axis=1).mean()),
        }
        for form in names:
            try:
                rows[form] = converted(predictor, form, EXACT_WITHIN, images, expected)[1]
            except TFGraphRegError as error:
                rows[form] = {"error": str(error)}
    return rows


def alone(name: str, seconds: float) -> dict[str, Any]:
    """What a process of its own measures of a network."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "rows.json"
        command = [sys.executable, __file__, "--only", name, "--here", str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {seconds:.0f} s"}
        if done.returncode or not out.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"error": f"the process ended with {done.returncode}: {last[:200]}"}
        return json.loads(out.read_text(encoding="utf-8"))


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "error" in row:
        return "no"
    return f"{row['largest_difference']:.0e}"


def lines(measured: dict[str, Any], about: dict[str, str]) -> list[str]:
    """The table, and in words what does not convert."""
    head = ["family", "network", *(name.replace("_", " ") for name in FORMATS), "same class, int8"]
    text = [f"| {' | '.join(head)} |", "|---|---|" + "--:|" * (len(head) - 2)]
    refused = []
    for name in sorted(measured, key=lambda n: (BACKBONES.get(n).family, n)):
        rows, family = measured[name], BACKBONES.get(name).family
        if "error" in rows:
            refused.append(f"`{name}`: {rows['error']}")
            continue
        same = rows.get("tflite_int8", {}).get("same_class")
        cells = [family, f"`{name}`", *(cell(rows.get(form)) for form in FORMATS)]
        cells.append("" if same is None else f"{same:.1%}")
        text.append(f"| {' | '.join(cells)} |")
        problems = {row["error"] for row in rows.values() if "error" in row}
        refused += [f"`{name}`: {problem}" for problem in sorted(problems)]
    return [
        *text,
        "",
        "Largest difference of a probability to the SavedModel's, over 200 images; no: refused.",
        *(["", *(f"- {line}" for line in refused)] if refused else []),
        "",
        f"{len(measured)} of {len(smallest_networks())} families. Made by "
        "`python tools/measure_exports.py`: random weights, batch normalization measured, "
        f"{IMAGES} test images of Fashion-MNIST at each network's smallest size; commit "
        f"{about['commit']}, TensorFlow {about['tensorflow']}, ai-edge-litert "
        f"{about['ai-edge-litert']}, tf2onnx {about['tf2onnx']}, onnxruntime "
        f"{about['onnxruntime']}.",
    ]


def provenance() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("tensorflow", "ai-edge-litert", "tf2onnx", "onnxruntime")
    return {"commit": commit() or "unknown", **{name: version(name) for name in packages}}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", help="names of families or networks")
    parser.add_argument("--missing", action="store_true", help="only those not measured yet")
    parser.add_argument("--seconds", type=float, default=900.0, help="most for a network")
    parser.add_argument("--most", type=float, default=1e9, help="begin none after so many seconds")
    parser.add_argument("--store", type=pathlib.Path, default=STORE, help="JSON of all networks")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE, help="page with the table")
    parser.add_argument("--here", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    smallest = smallest_networks()
    chosen = args.only or smallest.values()
    names = [BACKBONES.get(smallest.get(name, name)).name for name in chosen]
    if args.here:
        write_json(args.here, measure(names[0], list(FORMATS)))
        return 0
    started = time.perf_counter()
    found = json.loads(args.store.read_text(encoding="utf-8")) if args.store.exists() else {}
    measured = found.get("networks", {})
    if args.missing:
        names = [name for name in names if "saved_model" not in measured.get(name, {})]
    # The quickest first, so that a run that is stopped has measured many.
    for name in sorted(names, key=lambda name: BACKBONES.get(name).parameters):
        if time.perf_counter() - started > args.most:
            break
        measured[name] = alone(name, args.seconds)
        print(name, json.dumps(measured[name]), flush=True)
        about = provenance()
        write_json(args.store, {"about": about, "networks": measured})
        fill_measured(args.page, lines(measured, about))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main, repeated="with --missing goes on"))
