"""The command line answers at once and teaches."""

import dataclasses
import errno
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import pytest

from tfgraphreg import cli, config
from tfgraphreg.commands import show
from tfgraphreg.commands.flags import flag, in_flags, to_config
from tfgraphreg.commands.terminal import printable
from tfgraphreg.export import Prediction
from tfgraphreg.recipes.find import Answer

ROOT = pathlib.Path(__file__).parent.parent


def test_help_is_fast_and_names_every_flag():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=_environment(),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, for other work on the machine makes the clock run on.
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 4, "TensorFlow alone takes that long to load"
    for name in config.names_of(config.TrainConfig):
        assert flag(name) in done.stdout
    assert "examples:" in done.stdout


def _environment():
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_overview_lists_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0


def test_unknown_command_is_one_line(capsys):
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("error: Unknown command.")


def test_config_file_and_flags_meet(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("alpha: 0.5\ngraph_neighbors: 7\n")
    parser_output = _print_config(capsys, ["--config", str(path), "--alpha", "0.7"])
    assert "alpha: 0.7" in parser_output and "graph_neighbors: 7" in parser_output


def _print_config(capsys, words):
    with pytest.raises(SystemExit) as ended:
        cli.run_command("train", [*words, "--print_config"])
    assert not ended.value.code
    return capsys.readouterr().out


def test_printed_config_is_accepted_again(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(_print_config(capsys, ["--alpha", "0.25"]))
    assert "alpha: 0.25" in _print_config(capsys, ["--config", str(path)])


def test_unknown_key_in_a_config_file_is_one_line(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("alpah: 0.5\n")
    assert cli.run_command("train", ["--config", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("freeze: 2.5", "`--freeze` must be a word or a whole number. Received: freeze=2.5."),
        ("graph: 5", "`--graph` must be a word. Received: graph=5."),
        ("limit: 2.5", "`--limit` must be a whole number. Received: limit=2.5."),
        ("graph_radius: far", "`--graph-radius` must be a finite number. Received:"),
        ("graph: null", "`--graph` must be a word. Received: graph=None."),
        ("symmetrize: 'no'", "`--symmetrize` must be true or false. Received: symmetrize='no'."),
    ],
)
def test_values_of_the_wrong_type_in_a_config_file_are_one_line(tmp_path, capsys, line, words):
    path = tmp_path / "run.yaml"
    path.write_text(line + "\n")
    assert cli.run_command("train", ["--config", str(path), "--dataset", "digits"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {words}") and error.count("\n") == 1


def test_a_config_file_takes_a_number_of_stages_as_a_sweep_does(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("freeze: 2\n")
    args = cli.make_parser("train").parse_args(["--config", str(path)])
    assert config.TrainConfig(freeze=args.freeze).freeze == "2"
    again = tmp_path / "again.yaml"
    again.write_text(_print_config(capsys, ["--freeze", "2"]))
    assert "freeze" in _print_config(capsys, ["--config", str(again)])


@pytest.mark.parametrize("words", [["--limit", "1:30"], ["--limit=010"], ["--alpha", "0:3"]])
def test_a_number_that_yaml_reads_as_another_is_one_line(words, capsys):
    assert cli.run_command("train", ["--dataset", "digits", *words]) == 2
    message = capsys.readouterr().err
    assert "must be a decimal number" in message and message.count("\n") == 1


def test_a_text_that_yaml_reads_as_a_number_stays_a_text(capsys):
    assert "1:30" in _print_config(capsys, ["--dataset", "digits", "--labels", "1:30"])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_interruption_promises_only_what_the_command_can(name, monkeypatch, capsys):
    def stopped(args, progress):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, name, dataclasses.replace(cli.COMMANDS[name], run=stopped))
    needed = {name: "--run=r" for name in ("search", "evaluate", "embed", "embeddings", "serve")}
    needed |= {"predict": "a.png", "export": "--run=r --export-format=onnx"}
    assert cli.run_command(name, needed.get(name, "").split()) == 130
    error = capsys.readouterr().err
    assert error.startswith("interrupted; the same command ") and error.count("\n") == 1
    assert ("--resume" in error) == ("--resume" in cli.make_parser(name).format_help())


def test_backbones_prints_a_table(capsys):
    assert cli.main(["backbones", "mobilenet_v2*", "--max-parameters", "1"]) == 0
    out = capsys.readouterr().out
    assert "mobilenet_v2_035" in out and "resnet50" not in out


def test_scripts_are_the_commands_and_short():
    scripts = {path.stem.replace("_", "-"): path for path in (ROOT / "scripts").glob("*.py")}
    assert scripts.keys() == cli.COMMANDS.keys() - {"backbones"}
    assert all(len(path.read_text().splitlines()) < 20 for path in scripts.values())


def test_messages_of_the_library_speak_in_flags():
    flags = {"alpha": "--alpha", "symmetrize": "--symmetrize", "graph_radius": "--graph-radius"}
    said = in_flags("`graph_radius` or `alpha=0`, `symmetrize=True`, `other`, `x y`", flags)
    assert said == "`--graph-radius` or `--alpha 0`, `--symmetrize`, `other`, `x y`"


def test_a_terminal_is_not_driven_by_what_a_message_repeats():
    assert printable("a\x1b[31mé\r\n") == "a\\x1b[31mé\\r\\n"


@pytest.mark.parametrize("name", ["\x1b[31mred", ":cat:", "[bold]x[/bold]", "a\nb"])
def test_names_from_outside_are_shown_as_they_are(name, capsys):
    shown = "a\\nb" if "\n" in name else name.replace("\x1b", "\\x1b")
    show.predicted([Prediction(name, ((name, 0.5),)), Prediction(name, error=name)])
    assert capsys.readouterr().out.count(shown) == 4
    show.searched([Answer(name, name, [(0.5, name, name)]), Answer(name, "", [], name)])
    assert capsys.readouterr().out.count(shown) == 6
    show.trained(name, {"test_accuracy": 0.5})
    assert shown in capsys.readouterr().out


# Every flag that training ever took, with a value that is not its default, in sets that go
# together. Both must stay: scripts are written with them.
FLAGS = [
    {
        "dataset": "folder:photos",
        "limit": 100,
        "labels_per_class": 5,
        "validation_fraction": 0.1,
        "on_bad_image": "skip",
        "cache_images": True,
        "image_size": 32,
        "backbone": "fcnn",
        "weights": "imagenet",
        "embedding_dim": 32,
        "freeze": "2",
        "backbone_learning_rate": 0.5,
        "stage_decay": 0.7,
        "warmup_epochs": 1,
        "alpha": 0.2,
        "distance": "euclidean",
        "regularize": "logits",
        "neighbors": "gathered",
        "max_neighbors": 3,
        "neighbor_sampling": "top",
        "graph": "knn,threshold,radius",
        "graph_features": "pixels",
        "graph_metric": "euclidean",
        "graph_neighbors": 7,
        "graph_search": "exact",
        "graph_weights": "binary",
        "graph_threshold": 0.8,
        "graph_radius": 2.0,
        "symmetrize": True,
        "edge_kinds": "ll,lu",
        "objective": "softmax",
        "augment": "flip",
        "epochs": 3,
        "batch_size": 64,
        "learning_rate": 0.01,
        "schedule": "fixed",
        "precision": "mixed_float16",
        "strategy": "none",
        "jit_compile": True,
        "seed": 4,
        "run_dir": "runs/x",
        "export_dir": "saved_models/x",
        "resume": True,
    },
    {"data_dir": "mnist"},
    {"packer": "stream"},
    {"neighbors": "paired", "pairing": "weight", "pair_correction": True},
    {"neighbors": "paired", "graph_loss": "contrast", "contrast_temperature": 0.2},
]


def words_of(settings):
    for name, value in settings.items():
        yield from (flag(name), *([] if value is True else [str(value)]))


def test_the_list_of_flags_is_whole():
    assert len({name for settings in FLAGS for name in settings}) == 49


@pytest.mark.parametrize("settings", FLAGS)
def test_flags_yaml_and_nested_yaml_give_the_same_config(settings, tmp_path):
    wanted = config.TrainConfig(**settings)
    assert {name: getattr(wanted, name) for name in settings} == settings
    nested = {}
    for title, section in config.SECTIONS.items():
        own = {k: v for k, v in settings.items() if k in config.names_of(section)}
        nested.update({title: own} if own else {})
    files = {"flat": settings, "nested": nested}
    parsed = [list(words_of(settings))]
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        parsed.append(["--config", str(tmp_path / name)])
    for words in parsed:
        assert to_config(cli.make_parser("train").parse_args(words)) == wanted
    assert config.from_mapping(nested) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "graph: {alpha: 1}",
            "The section graph of the config has no such setting.",
        ),
        ("alpha: 1\ngraph_term: {alpha: 2}", "A setting stands twice in the config."),
    ],
)
def test_sections_that_cannot_be_read_are_one_line(text, words, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert cli.run_command("train", ["--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_what_nobody_foresaw_is_one_line_that_names_a_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def work():
        raise LookupError("no such thing\x1b[31m\nand more")

    assert cli.exit_status(work) == 70
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    (file,) = tmp_path.iterdir()
    assert str(file) in line and "LookupError: no such thing" in line and "\x1b" not in err
    assert out == ""
    text = file.read_text()
    assert "tensorflow: " in text and "tfgraphreg: " in text
    assert 'raise LookupError("no such thing' in text


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.ENOSPC])
def test_a_file_that_the_system_refuses_is_the_users_to_mend(capsys, number):
    def work():
        raise OSError(number, os.strerror(number), "x/y")

    assert cli.exit_status(work) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "x/y" in line


HOSTILE_FLAGS = [
    ["train", "--epochs", str(2**63)],
    ["train", "--batch-size", str(10**30)],
    ["train", "--embedding-dim", str(2**31)],
    ["train", "--learning-rate", "1e39"],
    ["train", "--dataset", "folder:" + "x" * 5000],
    ["train", "--dataset", "folder:" + "x" * 300],
    ["train", "--dataset", "folder:~nosuchuser/images"],
    ["train", "--dataset", "folder:a\0b"],
    ["train", "--dataset", "folder:LOOP"],
    ["train", "--run-dir", "LOOP/r"],
    ["train", "--run-dir", "x" * 300],
    ["train", "--run-dir", "~nosuchuser/r"],
    ["train", "--config", "DEEP.yaml"],
    ["train", "--config", "ALIASES.yaml"],
    ["train", "--config", "DIGITS.yaml"],
    ["train", "--config", "."],
    ["train", "--config", "FIFO"],
    ["train", "--alpha", "nan"],
    ["train", "--alpha", "9" * 400],
    ["backbones", "--max-parameters", "9" * 400],
    ["backbones", "--max-parameters", "inf"],
    ["compare", "RUN_DEEP", "--out", "a\0b"],
    ["build-graph", "--dataset", "digits", "--out", "a\0b"],
    ["propagate", "--dataset", "digits", "--labels-per-class", "1", "--out", "a\0b.tsv"],
    ["embed", "--run", "RUN_DEEP", "--seed", "-1"],
    ["train", "--graph", "FIFO"],
    ["compare", "--sweep", "DEEP.yaml"],
    ["compare", "--sweep", "ALIASES.yaml"],
    ["compare", "--sweep", "DIGITS.yaml"],
    ["compare", "--sweep", "FIFO"],
    ["compare", "RUN_DEEP"],
    ["evaluate", "--run", "RUN_DEEP"],
    ["evaluate", "--run", "RUN_DIGITS"],
    ["evaluate", "--run", "x" * 300],
    ["evaluate", "--run", "~nosuchuser"],
    ["evaluate", "--run", "LOOP"],
    ["predict", "--model", "LOOP", "a.png"],
    ["predict", "--model", "x" * 300, "a.png"],
    ["predict", "--run", "RUN_DEEP", "a.png"],
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of files that take a careless reader with them."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "LOOP").symlink_to("LOOP")
    os.mkfifo(folder / "FIFO")
    (folder / "DEEP.yaml").write_text("alpha: " + "[" * 5000)
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (folder / "ALIASES.yaml").write_text("\n".join(["a0: &a0 [x]", *levels]))
    (folder / "DIGITS.yaml").write_text("epochs: " + "9" * 400)
    for name, text in (
        ("RUN_DEEP", '{"a":' * 100_000 + "1" + "}" * 100_000),
        ("RUN_DIGITS", '{"epochs": ' + "9" * 400 + "}"),
    ):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    return folder


@pytest.mark.parametrize("words", HOSTILE_FLAGS, ids=lambda words: " ".join(words)[:40])
def test_hostile_values_end_in_one_line(hostile, words, capsys, monkeypatch):
    monkeypatch.chdir(hostile)
    before = sorted(path for path in hostile.rglob("*") if not path.is_dir())
    quick = ["--dataset", "digits", "--limit", "20"] if "--dataset" not in words else []
    more = quick if words[0] == "train" else []
    assert cli.main([words[0], *more, *words[1:]]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 6000
    assert sorted(path for path in hostile.rglob("*") if not path.is_dir()) == before


def test_a_long_text_is_one_bounded_line(capsys):
    def work():
        raise config.ConfigError("no such id", received="x" * 10_000_000)

    assert cli.exit_status(work) == 2
    assert len(capsys.readouterr().err) < 3000
    assert len(printable("y" * 10_000_000)) == 10_003
