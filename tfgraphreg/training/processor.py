"""What the processor can do."""

from __future__ import annotations

import pathlib

from tfgraphreg.compat import tf

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


def multiplies_bfloat16() -> bool:
    """Whether the processor trains and has instructions for bfloat16 numbers.

    False where there is a GPU, and on systems that do not say what the processor can do.
    """
    if tf.config.list_physical_devices("GPU"):
        return False
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _INSTRUCTIONS.isdisjoint(flags.split())
