"""Names of tensorflow that annotations use: all are Any."""

from typing import Any

from tensorflow import data as data
from tensorflow import distribute as distribute

def __getattr__(name: str) -> Any: ...
