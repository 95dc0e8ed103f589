"""Names of tf_keras that annotations use: all are Any."""

from typing import Any

from tf_keras import callbacks as callbacks
from tf_keras import layers as layers
from tf_keras import losses as losses
from tf_keras import metrics as metrics
from tf_keras import models as models
from tf_keras import optimizers as optimizers

def __getattr__(name: str) -> Any: ...
