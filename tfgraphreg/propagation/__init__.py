"""Labels over a graph: from a few labeled images to all that edges join to them."""

from tfgraphreg.propagation.methods import METHODS, Method, Problem
from tfgraphreg.propagation.propagate import Propagation, propagate

__all__ = ["METHODS", "Method", "Problem", "Propagation", "propagate"]
