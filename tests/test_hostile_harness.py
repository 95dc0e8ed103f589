"""Hostile flags, configs and files end in one line, or do what they say; nothing hangs.

`pytest -m slow tests/test_hostile_harness.py` gives some 850 commands what no careful user would;
`tests/test_cli.py` does a few among the ordinary tests.
"""

import io
import json
import os
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tfgraphreg import cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]

DATA = ["--dataset", "digits", "--limit", "40"]
TRAIN = ["train", *DATA, "--backbone", "fcnn", "--epochs", "1", "--run-dir", "new"]
COMMANDS = {
    "train": TRAIN,
    "build-graph": ["build-graph", *DATA, "--out", "graph"],
    "suggest": ["suggest", *DATA, "--labels-per-class", "1", "--n", "3", "--out", "suggested"],
    "audit": ["audit", *DATA, "--out", "audited"],
    "backbones": ["backbones", "res*"],
    "propagate": ["propagate", *DATA, "--labels-per-class", "1", "--out", "labels.tsv"],
    "evaluate": ["evaluate", "--run", "r", "--no-figures"],
    "embed": ["embed", "--run", "r", "--limit", "20"],
    "search": ["search", "--run", "r", "good.png"],
    "predict": ["predict", "--run", "r", "good.png"],
    "compare": ["compare", "r", "--out", "c"],
}
NUMBERS = [
    *(str(2**63), str(-(2**63)), str(10**30), "9" * 400, "1e39", "1e308", "1e-400", "-1", "-0.5"),
    *("nan", "inf", "-inf", "0x10", "1_0", "٣", "", "null", "[1]", "{a: 1}", "\x1b[31m1", "1;2"),
]
WORDS = [
    *(
        "\x1b[31mred\x07",
        "x" * 5000,
        "x" * 300,
        "a\0b",
        "",
        ".",
        "..",
        "/dev/zero",
        "/proc/self/mem",
    ),
    *("LOOP", "FIFO", "~nosuchuser/x", "'", '"', "{", "[]", "null", "&a [*a]", "\ud800", "😀" * 90),
    *("!!python/object/apply:os.system [id]", "folder:FIFO", "file:FIFO", "model:LOOP", "run:LOOP"),
]
# Of each flag with values so many are tried, drawn by the flag's name.
_TRIED = 2


def flag_cases():
    """By command, each flag that takes a value with some of those above."""
    for name, words in COMMANDS.items():
        for action in cli.make_parser(name)._actions:
            flag = next((text for text in action.option_strings if text.startswith("--")), None)
            if flag is None or action.nargs == 0 or flag in ("--help", "--print_config"):
                continue
            values = WORDS if action.type is str else NUMBERS
            rng = np.random.default_rng(zlib.crc32(f"{name} {flag}".encode()))
            for value in rng.choice(values, _TRIED, replace=False):
                yield pytest.param([*words, flag, str(value)], id=f"{name} {flag} {value[:12]!r}")


TEXTS = {
    "empty": "",
    "nul": "alpha: \0",
    "deep": "alpha: " + "[" * 5000,
    "deep json": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "aliases": "\n".join(
        ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))]
    ),
    "digits": "epochs: " + "9" * 400,
    "exponent": '{"epochs": 1e999}',
    "list": "- alpha: 1",
    "word": "alpha",
    "number": "3",
    "code": "alpha: !!python/object/apply:os.system [touch owned]",
    "list as key": "? [1, 2]\n: 3",
    "date": "alpha: 2001-99-99",
    "twice": "alpha: 1\nalpha: 2",
    "twice json": '{"alpha": 1, "alpha": 2}',
    "unknown": "alhpa: 1",
    "escape": '"\\e[31m": 1',
    "long name": "a" * 100_000 + ": 1",
    "wrong types": "epochs: [1, [2]]\nalpha: {b: c}",
    "sections": "graph: {graph: {graph: 1}}",
    "null": "epochs: null\ndataset: null",
    "boolean": "epochs: true",
    "merge": "<<: {epochs: 0}",
    "utf-16": "alpha: 1".encode("utf-16"),
    "not utf-8": b"alpha: \xff\xfe",
    "tabs": "\talpha:\t1",
}
READERS_OF_TEXT = {
    "train --config": ("FILE.yaml", [*TRAIN, "--config", "FILE.yaml"]),
    "compare --sweep": ("FILE.yaml", ["compare", "--sweep", "FILE.yaml"]),
    "config.json": ("r/config.json", ["evaluate", "--run", "r", "--no-figures"]),
    "metrics.json": ("r/metrics.json", COMMANDS["compare"]),
    "history.csv": ("r/history.csv", COMMANDS["compare"]),
    "tfgraphreg.json": ("saved_models/r/tfgraphreg.json", COMMANDS["predict"]),
    "graph.tsv": ("FILE.tsv", [*COMMANDS["build-graph"], "--graph", "FILE.tsv"]),
}


TABLES = {
    "empty": b"",
    "header": b"id,label,action\n",
    "no header": b"train/0,0,drop\n",
    "column missing": b"id,note\ntrain/0,0\n",
    "column twice": b"id,id,label,action\ntrain/0,train/0,0,drop\n",
    "row short": b"id,label,action\ntrain/0\n",
    "row long": b"id,label,action\ntrain/0,0,drop,1,2\n",
    "unknown id": b"id,label,action\nnobody,0,drop\n",
    "unknown class": b"id,label,action\nID,none such,drop\n",
    "two labels": b"id,label,action\nID,0,drop\nID,1,drop\n",
    "escape": b"id,label,action\n\x1b[31mred,\x1b[31mred,drop\n",
    "nul": b"id,label,action\na\0b,0,drop\n",
    "quote": b'id,label,action\n"ID,0,drop\n',
    "long cell": b"id,label,action\n" + b"x" * 200_000 + b",0,drop\n",
    "long class": b"id,label,action\nID," + b"x" * 100_000 + b",drop\n",
    "columns": b"id,label,action" + b",x" * 100_000 + b"\n",
    "utf-16": "id,label,action\n".encode("utf-16"),
    "not utf-8": b"id,label,action\n\xff,0,drop\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "semicolons": b"id;label;action\nID;0;drop\n",
    "tabs": b"id\tlabel\taction\nID\t0\tdrop\n",
    "formula": b"id,label,action\n=1+1,=1+1,=1+1\n",
    "negative": b"id,label,action\nID,-1,drop\n",
}
READERS_OF_TABLES = {
    "train --labels": [*TRAIN, "--labels", "FILE.csv"],
    "train --relabel": [*TRAIN, "--relabel", "FILE.csv"],
    "train --drop": [*TRAIN, "--drop", "FILE.csv"],
    "suggest --labels": ["suggest", *DATA, "--n", "3", "--out", "new", "--labels", "FILE.csv"],
    "suggest --drop": [*COMMANDS["suggest"], "--drop", "FILE.csv"],
    "audit --labels": [*COMMANDS["audit"], "--labels", "FILE.csv"],
    "audit --drop": [*COMMANDS["audit"], "--drop", "FILE.csv"],
}
# Tables that drop one image or none, and give another class to none; of labels there must be one.
USABLE = {
    "--drop": {"header", "two labels", "unknown class", "long class", "negative", "columns"},
    "--relabel": {"header", "columns"},
}


def png(width, height, *, bits=8, color=0, content=b""):
    """A PNG file whose header says what it will."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(kind, array, **more):
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind, **more)
    return content.getvalue()


PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
IMAGES = {
    "empty.png": b"",
    "text.png": b"hello",
    "cut.png": saved("PNG", PIXELS)[:40],
    "no pixels.png": png(8, 8),
    "huge.png": png(60_000, 60_000, content=b"\0" * 1000),
    "widest.png": png(2**31 - 1, 1),
    "zero.png": png(0, 8),
    "bits.png": png(8, 8, bits=7),
    "bomb.png": png(30_000, 30_000, content=b"\0" * 30_000_000),
    "cut.jpg": saved("JPEG", PIXELS)[:100],
    "start.jpg": b"\xff\xd8\xff",
    "cut.gif": saved("GIF", PIXELS)[:20],
    "cut.webp": saved("WEBP", PIXELS)[:30],
    "cut.tif": saved("TIFF", PIXELS)[:60],
    "cut.bmp": saved("BMP", PIXELS)[:60],
    "thin.png": saved("PNG", np.zeros((1, 5000), np.uint8)),
    "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
    "zip.png": b"PK\x03\x04" + b"\0" * 100,
    "\x1b[31mred.png": b"no image",
}
READERS_OF_IMAGES = {
    "predict": ["predict", "--run", "r", "FILE"],
    "search": ["search", "--run", "r", "FILE"],
    "search --add": ["search", "--run", "r", "--add", "FILE"],
    "train": ["train", "--dataset", "folder:images", "--graph-neighbors", "3", *TRAIN[5:]],
}


def npy(descr="<f4", shape=(40, 3), content=b"\0" * 480, header=None):
    out = io.BytesIO()
    if header is None:
        about = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, about)
    else:
        out.write(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header)
    return out.getvalue() + content


def archive(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return out.getvalue()


ARRAYS = {
    "empty": b"",
    "objects": npy("|O"),
    "petabyte": npy(shape=(2**40, 256)),
    "negative": npy(shape=(-40, 3)),
    "product": npy(shape=(2**33, 2**33)),
    "deep header": npy(header=b"(" * 60_000),
    "code in header": npy(header=b"__import__('os').system('touch owned')\n"),
    "short": npy(content=b"\0" * 10),
    "strings": npy("<U3", content=b"a\0\0\0" * 360),
    "nan": npy(content=np.full(120, np.nan, "<f4").tobytes()),
    "complex": npy("<c8", content=b"\0" * 960),
    "dates": npy("<M8[D]", content=b"\0" * 960),
    "no rows": npy(shape=(0, 3), content=b""),
    "no columns": npy(shape=(40, 0), content=b""),
    "flat": npy(shape=(120,)),
    "pickle": b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
}
READERS_OF_ARRAYS = {
    "vectors.npy": [*TRAIN, "--graph-features", "file:vectors.npy"],
    "vectors.npz": [*TRAIN, "--graph-features", "file:vectors.npz"],
    "graph.npz": [*COMMANDS["build-graph"], "--graph", "graph.npz"],
    "embedding.npz": COMMANDS["compare"],
    "items.npz": COMMANDS["search"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a finished run, its index, and what is no ordinary file."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TFGRAPHREG_CACHE", str(folder / "cache"))
        Image.fromarray(PIXELS).save("good.png")
        assert cli.main([*TRAIN, "--run-dir", "r"]) == 0
        assert cli.main(COMMANDS["search"]) == 0
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of that folder, to work in."""
    folder = tmp_path / "a" / "f"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("cache"))
    (folder / "LOOP").symlink_to("LOOP")
    os.mkfifo(folder / "FIFO")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(made / "cache"))
    return folder


def files_in(folder):
    return sorted(str(path) for path in folder.rglob("*") if not path.is_dir())


def one_line(words, folder, capsys):
    """Gives a command; it does as told or says in one line why not, and then leaves nothing."""
    before = files_in(folder)
    capsys.readouterr()
    status = cli.main(words)
    out, err = capsys.readouterr()
    about = f"status {status}\n{out[-1500:]}\n{err[-1500:]}"
    assert status in (0, 2) and "Traceback" not in out + err, about
    assert "\x1b" not in out + err and max(map(len, (out + err).splitlines() or [""])) < 7000, about
    if status == 2:
        last = (err or out).strip().splitlines()[-1]
        assert last.startswith("error: ") or words[0] in ("predict", "search"), about
        locks = (".lock", ".search.lock", ".results.lock")
        left = [path for path in files_in(folder) if not path.endswith(locks)]
        assert set(left) <= set(before), about
    assert not (folder / "owned").exists()
    return status


@pytest.mark.parametrize("words", list(flag_cases()))
def test_flags(words, place, capsys):
    one_line(words, place, capsys)


@pytest.mark.parametrize("reader", READERS_OF_TEXT)
@pytest.mark.parametrize("text", TEXTS)
def test_texts(reader, text, place, capsys):
    name, words = READERS_OF_TEXT[reader]
    content = TEXTS[text]
    note = (place / name).with_name(f".{(place / name).name}.sha256")
    note.unlink(missing_ok=True)
    (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
    one_line(words, place, capsys)


@pytest.mark.parametrize("reader", READERS_OF_TABLES)
@pytest.mark.parametrize("table", TABLES)
def test_tables(reader, table, place, capsys):
    content = TABLES[table].replace(b"ID", b"digits/all/00000")
    if reader.endswith("--relabel"):
        content = content.replace(b"id,label,", b"id,issue,suggested,")
        content = content.replace(b"00000,", b"00000,label_error,")
    (place / "FILE.csv").write_bytes(content)
    status = one_line(READERS_OF_TABLES[reader], place, capsys)
    assert status == (0 if table in USABLE.get(reader.split()[-1], ()) else 2)


@pytest.mark.parametrize("reader", READERS_OF_IMAGES)
@pytest.mark.parametrize("name", IMAGES)
def test_images(reader, name, place, capsys):
    folder = place / "images"
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(PIXELS + number).save(folder / label / f"{number}.png")
    file = folder / "a" / name
    file.write_bytes(IMAGES[name])
    words = [str(file) if word == "FILE" else word for word in READERS_OF_IMAGES[reader]]
    status = one_line(words, place, capsys)
    assert status == (0 if name == "thin.png" else 2)


@pytest.mark.parametrize("reader", READERS_OF_ARRAYS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(reader, name, place, capsys):
    content = ARRAYS[name]
    if reader.endswith(".npz"):
        member = {"vectors.npz": "vectors", "graph.npz": "indices", "embedding.npz": "points"}
        content = archive(**{member.get(reader, "ids"): content})
    path = {"embedding.npz": "r/embedding.npz", "items.npz": "saved_models/r/search/items.npz"}
    (place / path.get(reader, reader)).write_bytes(content)
    status = one_line(READERS_OF_ARRAYS[reader], place, capsys)
    # A page is made without the picture, and says so.
    assert status == (0 if reader == "embedding.npz" else 2)


@pytest.mark.parametrize("name", ["FIFO", "/dev/zero", "/dev/stdin", "/proc/self/mem", "LOOP", "."])
@pytest.mark.parametrize("reader", ["predict", "search", "search --add"])
def test_what_is_no_file(reader, name, place, capsys):
    words = [name if word == "FILE" else word for word in READERS_OF_IMAGES[reader]]
    assert one_line(words, place, capsys) == 2


def test_json_of_a_run_with_a_value_of_every_type_in_every_place(place, capsys):
    path = place / "r/metrics.json"
    whole = json.loads(path.read_text())
    (place / "r/.metrics.json.sha256").unlink()
    for key in whole:
        for value in (None, True, -1, 1e308, "x", "\x1b[31m", [], [[]], {}, {"a": {}}):
            path.write_text(json.dumps({**whole, key: value}))
            one_line(COMMANDS["compare"], place, capsys)
