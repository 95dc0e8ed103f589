"""The limit beyond which a query is unknown: set for a run's index, and measured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.open_set import left_out_report, open_set_report
from tfgraphreg.export import Predictor
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.added import files_below
from tfgraphreg.recipes.run_index import calibrate_by
from tfgraphreg.runs.folder import RunFolder, writing_results
from tfgraphreg.runs.outputs import load_data, measured_by
from tfgraphreg.search.saved import has_limit
from tfgraphreg.search.threshold import Calibration, check_share, least_known
from tfgraphreg.storage import write_json
from tfgraphreg.visualize.search import Searcher

logger = logging.getLogger(__name__)

OPEN_SET = "open_set.json"
# Images that are asked about for each class that is left out.
_MOST_ASKED = 2000
_BATCH = 256


def check_reject(run: RunFolder, reject: float | None, unknown: Sequence[str]) -> None:
    """Refuses a share that cannot be, before anything is loaded.

    Raises:
        ConfigError: If `reject` is out of range, or there is no limit that `unknown` can measure.
    """
    if reject is not None:
        check_share(reject)
    if reject == 1 and unknown:
        raise ConfigError(
            "`unknown` measures a limit, and `reject=1` takes it away.",
            received=f"reject={reject}",
            cure="Try `reject=0.95`.",
        )
    if reject is None and unknown and not has_limit(run.export_path):
        raise _no_limit()


def share_of(searcher: Searcher) -> float:
    """The share of images of known classes that an index accepts; 1 if it has no limit."""
    return 1.0 if searcher.calibration is None else searcher.calibration.share


def set_limit(
    run: RunFolder, predictor: Predictor, searcher: Searcher, share: float, progress: Progress
) -> bool:
    """Sets the limit of an index by images that it does not hold; False if it is set so already.

    The index is not saved.

    Raises:
        DataError: If there are too few images, or they cannot be loaded.
    """
    before = searcher.calibration
    if share_of(searcher) == share:
        return False
    if share == 1 or (before is not None and len(before) >= least_known(share)):
        searcher.calibrate(share)
    else:
        data = measured_by(run.config, load_data(run.config, progress))
        calibrate_by(searcher, predictor, data, share, progress)
    return True


def measure_limit(
    run: RunFolder,
    predictor: Predictor,
    searcher: Searcher,
    unknown: Sequence[str] = (),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measures the limit of an index, says the numbers, and writes them to open_set.json.

    Args:
        run: The run, into whose folder the numbers are written if that can be.
        predictor: Its model.
        searcher: Its index, which has a limit.
        unknown: Image files of no known class, and folders of them.
        progress: Called while work goes on.

    Returns:
        The numbers; `left_out` is None for an index without two classes, and `unknown` without
        such files.

    Raises:
        ConfigError: If the index has no limit.
        DataError: If one of the files is no usable image.
    """
    known, limit = searcher.calibration, searcher.limit
    if known is None or limit is None:
        raise _no_limit()
    logger.info(
        f"Unknown is what lies farther than {limit:.4f} from every image: set by {len(known)} "
        f"{known.source}, of which a share of {known.share:g} is accepted."
    )
    found: dict[str, Any] = {
        **known.about(limit),
        "method": searcher.method,
        "distance": searcher.distance,
        "items": len(searcher),
        "left_out": _left_out(searcher, known, progress),
        "unknown": None,
    }
    if unknown:
        files = [file for path in unknown for file in files_below(path)]
        near = _to_nearest(searcher, known.embeddings)
        far = _to_nearest(searcher, _embedded(predictor, files, progress))
        report = open_set_report(near, far, limit=limit)
        found["unknown"] = {"files": list(unknown), **report}
        logger.info(
            f"Of {len(files)} unknown images {report['unknown_accepted']:.1%} are accepted; AUROC "
            f"against the {len(known)} {known.source}: {report['auroc']:.4f}"
        )
    try:
        with writing_results(run, OPEN_SET):
            write_json(run.path / OPEN_SET, found)
    except DataError as error:
        # The numbers were said: the run may lie where nobody may write.
        logger.warning(f"{OPEN_SET} is not kept: {error}")
    return found


def _left_out(searcher: Searcher, known: Calibration, progress: Progress) -> dict[str, Any] | None:
    asked = np.flatnonzero(known.labels != "")
    asked = np.sort(np.random.default_rng(0).permutation(asked)[:_MOST_ASKED])
    if not len(asked) or len(set(searcher.labels.tolist()) - {""}) < 2:
        return None
    progress("leaving each class out", 0, 1)
    names, distances = searcher.nearest_of_each_label(known.embeddings[asked])
    progress("leaving each class out", 1, 1)
    report = left_out_report(distances, known.labels[asked], names, share=known.share)
    classes = report["classes"]
    if not classes:
        return None
    order = sorted(classes, key=lambda name: classes[name]["auroc"])
    logger.info(
        f"Each of {len(classes)} classes left out of the index: AUROC {report['auroc']:.4f} in the "
        f"mean, from {classes[order[0]]['auroc']:.4f} ({order[0]}) to "
        f"{classes[order[-1]]['auroc']:.4f} ({order[-1]}); {report['unknown_accepted']:.1%} of its "
        "images are accepted. The network was trained on these classes: `unknown` measures by "
        "images of classes that are new to it."
    )
    return report


def _no_limit() -> ConfigError:
    return ConfigError(
        "`unknown` measures the limit of an index, and this one has none.",
        cure="Set one: `reject=0.95`.",
    )


def _to_nearest(searcher: Searcher, embeddings: np.ndarray) -> np.ndarray:
    return searcher.search(embeddings, k=1).distances[:, 0]


def _embedded(predictor: Predictor, files: Sequence[str], progress: Progress) -> np.ndarray:
    rows = []
    for start in range(0, len(files), _BATCH):
        progress("embedding unknown images", start, len(files))
        rows.append(predictor.embed_files(files[start : start + _BATCH]))
    return np.concatenate(rows)
