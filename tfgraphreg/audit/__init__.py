"""What a graph says of the images and labels that it was built from."""

from tfgraphreg.audit.duplicates import Duplicates, find_duplicates
from tfgraphreg.audit.findings import ISSUES, Audit, Finding, audit
from tfgraphreg.audit.labels import LabelErrors, find_label_errors
from tfgraphreg.audit.oddities import (
    Blend,
    blended_classes,
    find_hubs,
    find_isolated,
    find_outliers,
)

__all__ = [
    "ISSUES",
    "Audit",
    "Blend",
    "Duplicates",
    "Finding",
    "LabelErrors",
    "audit",
    "blended_classes",
    "find_duplicates",
    "find_hubs",
    "find_isolated",
    "find_label_errors",
    "find_outliers",
]
