"""SavedModels out, predictions in: classes of images, masks, boxes."""

from tfgraphreg.export.boxes import BoxPrediction, BoxPredictor, Detection, export_detector
from tfgraphreg.export.classes import Prediction, Predictor, export
from tfgraphreg.export.masks import MaskPrediction, MaskPredictor, export_segmenter
from tfgraphreg.export.saved import CLASSIFY, DETECT, SEGMENT, exported_task

PREDICTORS: dict[str, type[Predictor] | type[MaskPredictor] | type[BoxPredictor]] = {
    CLASSIFY: Predictor,
    SEGMENT: MaskPredictor,
    DETECT: BoxPredictor,
}
"""Who loads the SavedModels of each task."""

__all__ = [
    "CLASSIFY",
    "DETECT",
    "PREDICTORS",
    "BoxPrediction",
    "BoxPredictor",
    "Detection",
    "MaskPrediction",
    "MaskPredictor",
    "Prediction",
    "Predictor",
    "SEGMENT",
    "export",
    "export_detector",
    "export_segmenter",
    "exported_task",
]
