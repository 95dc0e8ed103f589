"""Labels over a graph: from a few labeled images to all that edges join to them."""

from tfgraphreg.propagation.kernel import kernel_ridge
from tfgraphreg.propagation.masks import CompletedMasks, complete_masks
from tfgraphreg.propagation.methods import METHODS, Method, Problem
from tfgraphreg.propagation.propagate import Propagation, propagate
from tfgraphreg.propagation.pseudo import PseudoLabels, pseudo_labels

__all__ = [
    "METHODS",
    "CompletedMasks",
    "Method",
    "Problem",
    "Propagation",
    "PseudoLabels",
    "complete_masks",
    "kernel_ridge",
    "propagate",
    "pseudo_labels",
]
