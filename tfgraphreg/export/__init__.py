"""SavedModels out, predictions in: classes of images, masks, boxes."""

from tfgraphreg.export.boxes import BoxPredictor, export_detector
from tfgraphreg.export.classes import Prediction, Predictor, export
from tfgraphreg.export.masks import MaskPredictor, export_segmenter

__all__ = [
    "BoxPredictor",
    "MaskPredictor",
    "Prediction",
    "Predictor",
    "export",
    "export_detector",
    "export_segmenter",
]
