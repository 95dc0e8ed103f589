"""Runs the tutorials of docs/tutorials/ and keeps the pictures that they make.

python tools/run_tutorials.py                 all of them, pictures to docs/images/tutorials/
python tools/run_tutorials.py few_labels      one

Each runs in a new folder: its Python blocks in one namespace, its lines that begin with
`tfgraphreg` as commands. Shows what they print, and how long each page took.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import tempfile
import time

from tfgraphreg import cli

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PICTURES = ROOT / "docs" / "images" / "tutorials"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Where a command's picture stands that a page shows under its own name.
MADE_BY_COMMANDS = {"photos.png": "runs/photos/figures/search.png"}


def run_page(page: pathlib.Path, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Runs a page's blocks in `folder`; the pictures that the page shows, by name.

    Raises:
        RuntimeError: If a command fails or a picture was not made.
    """
    text = page.read_text(encoding="utf-8")
    names: dict = {"__name__": "tutorial"}
    before = os.getcwd()
    os.chdir(folder)
    try:
        for language, code in BLOCK.findall(text):
            if language == "python":
                exec(compile(code, str(page), "exec"), names)
            elif language == "bash":
                _commands(code)
    finally:
        os.chdir(before)
    shown = re.findall(r"!\[.*?\]\(\.\./images/tutorials/(.+?)\)", text)
    made = {name: folder / MADE_BY_COMMANDS.get(name, name) for name in shown}
    missing = [name for name, path in made.items() if not path.is_file()]
    if missing or not made:
        raise RuntimeError(f"{page.name} did not make {missing or 'any picture'}")
    return made


def _commands(code: str) -> None:
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "tfgraphreg" and cli.run_command(words[1], words[2:]):
            raise RuntimeError(f"failed: {line}")


def main() -> None:
    """Runs the pages that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *(page.stem for page in PAGES)])
    wanted = parser.parse_args().names
    os.environ.setdefault("MPLBACKEND", "Agg")
    for page in PAGES:
        if wanted and page.stem not in wanted:
            continue
        print(f"== {page.name}")
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            for name, path in run_page(page, pathlib.Path(folder)).items():
                shutil.copy(path, PICTURES / name)
        print(f"== {page.name}: {time.monotonic() - start:.0f} s on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
