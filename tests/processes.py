"""Commands in processes of their own, forked from one that has loaded TensorFlow (5 s)."""

import multiprocessing
import os
import pathlib
import signal
import sys
import time

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
# What these import is there in every process; none of them computes anything when it is imported.
_LOADED = (
    "tfgraphreg.cli",
    "tfgraphreg.recipes.learn",
    "tfgraphreg.recipes.embed",
    "tfgraphreg.recipes.evaluate",
    "tfgraphreg.recipes.figures",
    "tfgraphreg.recipes.find",
    "tfgraphreg.recipes.build_graph",
    "tfgraphreg.recipes.propagate",
    "tfgraphreg.recipes.page",
    "tfgraphreg.recipes.sweep",
    "sklearn.datasets",
    "torch",
)


def folder_of_images(folder, *names):
    """Makes a folder with small images of these names, all different, and returns it."""
    folder.mkdir()
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 17, (8, 8), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def _context():
    # For the server that is forked from, and for the runs that a sweep starts.
    os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_LOADED))
    return context


def _work(folder, words, log, environment):
    os.chdir(folder)
    os.environ["TFGRAPHREG_CACHE"] = "cache"
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{log}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    from tfgraphreg import cli

    sys.exit(cli.main(words))


class Command:
    """A command at work in a folder, with a cache in that folder.

    Args:
        folder: Where it works.
        words: The command and its flags.
        environment: Further environment variables.
    """

    def __init__(self, folder, words, environment=None):
        self.words, self._log = words, f"{folder}.{time.monotonic_ns()}"
        arguments = (str(folder), words, self._log, environment or {})
        self._process = _context().Process(target=_work, args=arguments)
        self._process.start()

    def wait(self):
        """The exit status; that of a signal is negative."""
        self._process.join()
        return self._process.exitcode

    def send(self, number):
        """Sends a signal, if the command has not ended; one that is stopped goes on after 0.5 s."""
        try:
            os.kill(self._process.pid, number)
            if number == signal.SIGSTOP:
                time.sleep(0.5)
                os.kill(self._process.pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    @property
    def said(self):
        """What it wrote to standard output, and to standard error."""
        return [pathlib.Path(f"{self._log}.{name}").read_text() for name in ("out", "err")]


def at_once(folder, one, other, *, delay):
    """Two commands, of which the second begins some seconds later, when both have ended."""
    first = Command(folder, one)
    time.sleep(delay)
    both = [first, Command(folder, other)]
    for command in both:
        command.wait()
    return both


def alone(folder, words):
    """A command that must end well, when it has ended; and the seconds that it took."""
    started = time.monotonic()
    command = Command(folder, words)
    assert command.wait() == 0, (words, command.said)
    return command, time.monotonic() - started
