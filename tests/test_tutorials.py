"""The tutorials run from their first block to their last and make the pictures that they show."""

import importlib.util
import pathlib

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
_SPEC = importlib.util.spec_from_file_location("tutorials", ROOT / "tools" / "run_tutorials.py")
tutorials = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tutorials)


# Only this page is about Keras itself; the others would say the same on the other stack.
EVERY_STACK = ("keras_model",)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=() if p.stem in EVERY_STACK else pytest.mark.one_stack, id=p.stem)
        for p in tutorials.PAGES
    ],
)
def test_a_tutorial_runs(page, workplace):
    for name, path in tutorials.run_page(page, pathlib.Path.cwd()).items():
        kept = tutorials.PICTURES / name
        with Image.open(path) as made, Image.open(kept) as shown:
            assert made.size == shown.size
            assert len(made.convert("L").getcolors(256)) > 10  # not a blank page


def test_a_page_that_makes_no_picture_is_an_error(workplace):
    page = pathlib.Path("page.md")
    page.write_text("```python\nx = 1\n```\n![](../images/tutorials/none.png)\n")
    with pytest.raises(RuntimeError, match="did not make"):
        tutorials.run_page(page, pathlib.Path.cwd())
