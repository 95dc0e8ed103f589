"""Writes tfgraphreg/backbones/own_table.py from the `VARIANTS` of every family.

Run it after a change to a family's VARIANTS; then the tests compare the two.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tfgraphreg.storage import write_text  # noqa: E402

TABLE = ROOT / "tfgraphreg" / "backbones" / "own_table.py"
LINE = 100
HEAD = '''"""What own.py knows about each network: written by tools/list_own_backbones.py."""

from __future__ import annotations

from typing import Any

'''


def table(records: list) -> str:
    families: dict[str, tuple] = {}
    rows = []
    for r in records:
        shared = (r.arguments["module"], r.paper)
        if families.setdefault(r.family, shared) != shared:
            raise SystemExit(f"{r.name} differs from its family {r.family}: {shared}")
        sizes = (r.width, r.parameters, r.min_size, r.default_size)
        network = r.arguments["network"]
        rows.append((network, r.family, r.timm, r.preprocessing, *sizes, r.learning_rate))
    lines = ["# File, paper.", "FAMILIES: dict[str, tuple[str, str]] = {"]
    for name, shared in sorted(families.items()):
        lines += entry(name, shared)
    lines += [
        "}",
        "",
        "# Network, family, timm, preprocessing, features, parameters, sizes, learning rate.",
    ]
    lines += ["# fmt: off", "ROWS: list[tuple[Any, ...]] = ["]
    lines += [f"    {row!r},".replace("'", '"') for row in rows]
    return "# ruff: noqa: E501\n" + HEAD + "\n".join([*lines, "]", ""])


def entry(name: str, shared: tuple[str, str]) -> list[str]:
    """The lines of a family, divided where ruff format divides them."""
    name, *words = (json.dumps(word, ensure_ascii=False) for word in (name, *shared))
    line = f"    {name}: ({', '.join(words)}),"
    if len(line) <= LINE:
        return [line]
    return [f"    {name}: (", *(f"        {word}," for word in words), "    ),"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    if not TABLE.exists():
        write_text(TABLE, table([]))
    from tfgraphreg.backbones import own

    records = []
    for path in sorted((TABLE.parent / "families").glob("*.py")):
        variants = (
            getattr(own.load_family(path.stem), "VARIANTS", {}) if path.stem[0] != "_" else {}
        )
        records += [own.record_of(path.stem, variant) for variant in variants.values()]
    write_text(TABLE, table(records))
    print(f"{len(records)} networks in {TABLE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
