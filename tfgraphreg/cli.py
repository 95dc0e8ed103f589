"""The command line: flags and YAML in, one call, one-line errors out."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
import types
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from tfgraphreg import __version__, compat
from tfgraphreg.commands.flags import check_numbers, flag, flags_of, in_flags, with_recipe
from tfgraphreg.commands.table import COMMANDS
from tfgraphreg.commands.terminal import attached, printable
from tfgraphreg.errors import ConfigError, TFGraphRegError, first_line
from tfgraphreg.reading import read_yaml
from tfgraphreg.settings import TYPE_WORDS
from tfgraphreg.storage import user_path, write_error

# How jsonargparse words a value of the wrong type, where one type is allowed and where several.
_WRONG_TYPE = re.compile(
    r'Parser key "([^"]+)": .*?((?:Expected|Subtypes:) .*?<class .*?)'
    r"(?:\. Got value| Given value type: <class '\w+'> Given value): (.*)$"
)
# EX_SOFTWARE of sysexits.h.
UNFORESEEN = 70
_KINDS = {kind.__name__: words for kind, words in TYPE_WORDS.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """The program `tfgraphreg`. Returns its exit status: 0, or 2 after a one-line error."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--version"]:
        print(f"tfgraphreg {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    try:
        if argv[0] not in COMMANDS:
            raise ConfigError(
                f"Unknown command. Commands: {', '.join(COMMANDS)}.", received=repr(argv[0])
            )
    except ConfigError as error:
        return _fail(error, {})
    return run_command(argv[0], argv[1:])


def make_parser(name: str) -> ArgumentParser:
    """The parser of one command."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        pass

    command = COMMANDS[name]
    parser = ArgumentParser(
        prog=f"tfgraphreg {name}" if sys.argv[0].endswith("tfgraphreg") else None,
        description=command.help,
        epilog=command.epilog or None,
        formatter_class=Formatter,
        exit_on_error=False,
    )
    command.add_arguments(parser)
    return parser


def run_command(name: str, argv: Sequence[str] | None = None) -> int:
    """One command with its own flags; what the files in scripts/ call."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command, parser = COMMANDS[name], make_parser(name)
    flags = flags_of(parser)

    def work() -> int:
        args = _parse(parser, argv)
        with attached(lambda text: in_flags(text, flags)) as progress:
            return command.run(args, progress)

    return exit_status(work, repeated=command.repeated, flags=flags)


def exit_status(
    work: Callable[[], int],
    *,
    repeated: str = "begins anew",
    flags: Mapping[str, str] = types.MappingProxyType({}),
) -> int:
    """Does the work of a program, and says in one line what kept it from ending well.

    Args:
        work: Returns the exit status.
        repeated: What the same command does when it is given again after Ctrl-C.
        flags: The flag of each setting that a message may name.

    Returns:
        The status; 2 after an error that is the user's to mend, 70 after one that nobody foresaw,
        130 after Ctrl-C.
    """
    try:
        with warnings.catch_warnings():
            # What NumPy warns of beside an error is not the user's to mend.
            if not sys.warnoptions:
                warnings.simplefilter("ignore", RuntimeWarning)
            return work()
    except (TFGraphRegError, ArgumentError) as error:
        return _fail(error, flags)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        known = write_error(error, error.filename or "a file")
        return _unforeseen(error) if known is error else _fail(known, flags)
    except KeyboardInterrupt:
        print(f"interrupted; the same command {repeated}", file=sys.stderr)
        return 130
    except Exception as error:
        return _unforeseen(error)


def _parse(parser: ArgumentParser, argv: list[str]) -> Any:
    compat.prepare_environment()
    argv = with_recipe(argv)
    check_numbers(parser, argv)
    for place, word in enumerate(argv):
        if word == "--config" or word.startswith("--config="):
            _check_config_file(word.partition("=")[2] or (argv[place + 1 : place + 2] or [""])[0])
    from yaml import YAMLError

    try:
        return parser.parse_args(argv)
    # The parser reads every value as YAML.
    except (YAMLError, RecursionError) as error:
        raise ConfigError(
            "The value of a flag cannot be read.",
            received=first_line(error),
            cure="Look for control characters and brackets.",
        ) from error
    except OverflowError as error:
        raise ConfigError(
            "A number is too large.", received=f"{max(argv, key=len)[:80]}...", cure="Shorten it."
        ) from error


def _check_config_file(path: str) -> None:
    """Refuses a file that the parser would wait for, or fall over."""
    try:
        read_yaml(user_path(path))
    except ValueError as error:
        raise ConfigError(
            f"The file of `--config` cannot be read ({error}).", received=path[:200]
        ) from error


def _fail(error: Exception, flags: Mapping[str, str]) -> int:
    text = " ".join(str(error).split())
    print(f"error: {printable(in_flags(_wrong_type(text) or text, flags))}", file=sys.stderr)
    return 2


def _unforeseen(error: Exception) -> int:
    """Keeps the traceback and the versions in a file, and names it in one line."""
    from tfgraphreg.recipes.versions import versions

    lines = [f"command: {printable(' '.join(sys.argv))[:2000]}"]
    lines += [f"{name}: {value}" for name, value in versions().items()]
    lines += ["", *traceback.format_exception(error)]
    try:
        handle, name = tempfile.mkstemp(prefix="tfgraphreg-error-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(lines))
        where = f"The details are in {name}"
    except OSError:
        where = "The details could not be written"
    what = printable(f"{type(error).__name__}: {first_line(error)}")
    print(
        f"error: Something that nobody foresaw went wrong ({what}). {where}: please report them.",
        file=sys.stderr,
    )
    return UNFORESEEN


def _wrong_type(text: str) -> str | None:
    """In this project's words, what jsonargparse says of a value of the wrong type."""
    found = _WRONG_TYPE.match(text)
    if not found:
        return None
    name, types, value = found.groups()
    kinds = [_KINDS[k] for k in re.findall(r"<class '(\w+)'>", types) if k in _KINDS]
    rule = " or ".join(dict.fromkeys(kinds))
    return rule and f"`{flag(name)}` must be {rule}. Received: {name}={value}."


def _overview() -> str:
    lines = [
        "usage: tfgraphreg COMMAND [flags]",
        "",
        "Image embeddings by graph regularization: similar images lie close together.",
        "",
        "commands:",
        *(f"  {name:<14}{command.help}" for name, command in COMMANDS.items()),
        "",
        "`tfgraphreg COMMAND --help` explains a command. To begin without any network:",
        "  tfgraphreg train --dataset digits --epochs 2",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
