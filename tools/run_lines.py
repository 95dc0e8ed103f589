"""What the measuring tools share: finished runs as lines of a file, commands of this checkout."""

import json
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The runs of a file, none if there is no file yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_line(path: pathlib.Path, line: dict[str, Any]) -> None:
    """Adds a finished run."""
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


def machine() -> str:
    """Where a run was measured, as lines and pages say it."""
    return f"{os.cpu_count()} cores, {platform.machine()}"


def run_python(arguments: list[str], **variables: str) -> None:
    """Runs a Python command of this checkout; its own messages only where it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:] or done.stdout[-2000:])


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command that imports the package of this checkout."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": paths, **variables}
