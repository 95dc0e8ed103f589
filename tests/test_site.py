"""The site builds without a warning, has every public name, and asks no other host for anything."""

import os
import pathlib
import subprocess
import sys
import urllib.parse

import pytest

import tfgraphreg
from tfgraphreg import _HOMES

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_public_name_has_an_entry(site):
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    missing = [name for name, home in _HOMES.items() if f'id="{home}.{name}"' not in text]
    assert not missing and set(_HOMES) < set(tfgraphreg.__all__)


def test_pages_open_from_disk_and_ask_nobody(site, browser):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    page = browser.new_page(viewport={"width": 390, "height": 800})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for path in pages:
        if path.name != "404.html":  # which is served from the root of a host
            page.goto(path.as_uri())
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, (path.name, wide)
    page.close()
    local = [url for url in asked if not url.startswith(("data:", "blob:"))]
    assert len(local) > len(pages)
    for url in local:
        assert url.startswith(f"{site.as_uri()}/"), url
        path = site / urllib.parse.unquote(urllib.parse.urlsplit(url).path)[len(str(site)) + 1 :]
        assert path.is_file(), url
