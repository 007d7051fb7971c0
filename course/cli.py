"""The entry point of all commands: streams, signals, errors in one line, the exit status.

Until `run` has been called, Ctrl-C ends in a traceback. A script that imports much, such as torch,
calls `run_module` before these imports.
"""

import argparse
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from course import files
from course.files import describe_error

INTERRUPTED = "Interrupted: what was not reported above as written is as it was."
SIGNALS = [getattr(signal, s) for s in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, s)]
# Where there is too little memory: the words of torch, of Python, of the loader of libraries.
EXHAUSTED = ("DefaultCPUAllocator", "can't start new thread", "failed to map segment")
DOUBLE = 2.0  # seconds in which a second signal belongs to the first, whose clean-up goes on


def run(main: Callable[[], int | None], interrupted: str = INTERRUPTED) -> NoReturn:
    """Run a command and exit with its status.

    That is `status_of` or, after a signal, 128 + its number: 130 for Ctrl-C. What cannot be printed
    is dropped, and the work goes on.
    """
    received: list[int] = []
    try:
        os.umask(os.umask(0o077) & 0o077)  # what a command writes, it can read again
        set_up_streams()
        set_up_signals(received)
        refuse()
        status = status_of(main, received)
    except SystemExit as stop:  # argparse's
        status = int(stop.code or 0)
    except BaseException as error:
        if not received and not isinstance(error, KeyboardInterrupt):
            raise
        ignore_signals()
        print(interrupted, file=sys.stderr)
        status = 128 + (received or [signal.SIGINT])[0]
    ignore_signals()  # the work is done: what follows is not interrupted
    files.remove_temporary()
    sys.stdout.flush()
    if LOST:
        print(f"note: {describe_error(LOST[0], 'stdout', writing=True)}", file=sys.stderr)
    sys.exit(status)


def refuse() -> None:
    """Exit with status 2 where no command can work as it was called."""
    line = "an argument is empty; is a shell variable not set?" if "" in sys.argv[1:] else ""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # torch would end the process without a word of why
        line = "the current folder is gone; cd to one that exists"
    if line:
        print(f"Error: {line}", file=sys.stderr)
        sys.exit(2)


def run_module(name: str, parse: Callable[[], Any], interrupted: str = INTERRUPTED) -> NoReturn:
    """Run `parse`, which tells a wrong call at once; then import a module, and run its `main`."""

    def main() -> int | None:
        parse()
        return import_module(name).main()

    run(main, interrupted)


def status_of(main: Callable[[], int | None], received: Sequence[int] = ()) -> int:
    """Return what a command returns, None being 0; after an error that a user sees, 1.

    Such are those whose class has `user_facing = True` and the file system's: one line on stderr.
    """
    try:
        return main() or 0
    except Exception as error:
        line = one_line(error)
        if line is None or received:  # after a signal any error follows from it
            raise
        print(line, file=sys.stderr)
        return 1


def one_line(error: Exception) -> str | None:
    """Return the user's line on an error; None for a bug, whose traceback is needed."""
    if getattr(type(error), "user_facing", False):
        text = str(error)
    elif isinstance(error, OSError):
        text = describe_error(error)
    elif isinstance(error, MemoryError) or any(text in str(error) for text in EXHAUSTED):
        text = "not enough memory or threads; close other programs, or use a machine with more"
    elif isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":
        text = f"file names are {error.encoding} here, which lacks a letter; set PYTHONUTF8=1"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        text = f"{error.name} is not installed; pip install -r requirements.txt"
    else:
        return None
    return "Error: " + printable(" ".join(text.splitlines()))


def printable(text: str, keep: str = "") -> str:
    """Return a text, as it may hold names of files, with its control codes shown, not obeyed."""
    return "".join(c if c in keep or c.isprintable() else ascii(c)[1:-1] for c in text)


# ---- Arguments -----------------------------------------------------------------------------------


def natural(text: str, least: int = 0, most: int | None = None) -> int:
    """Return a whole number from `least` to `most`. Raises ArgumentTypeError."""
    if text.isdecimal() and len(text) < 20 and least <= int(text) <= (most or 10**9):
        return int(text)
    end = "on" if most is None else f"to {most}"
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} {end}")


positive = partial(natural, least=1)


# ---- Signals -------------------------------------------------------------------------------------


def set_up_signals(received: list[int]) -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, and note their numbers.

    A signal that was ignored before, such as SIGHUP under nohup, stays so.
    """
    process, last = os.getpid(), -DOUBLE

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != process:  # a forked worker: it ends silently
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif _must_wait(frame):
            _send_later(number)
        elif time.monotonic() - last >= DOUBLE:
            last = time.monotonic()
            received.append(number)
            raise KeyboardInterrupt

    def repeat(lost: Any) -> None:  # sys.UnraisableHookArgs
        """Send a signal again that came in a callback, where Python drops exceptions."""
        nonlocal last
        if received and isinstance(lost.exc_value, KeyboardInterrupt):
            last = -DOUBLE
            _send_later(received.pop())
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = repeat
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _must_wait(frame: FrameType | None) -> bool:
    """Tell whether something is imported, where many a library catches all, or is to be whole."""
    if frame and frame.f_code is run.__code__:  # before the command, or after it
        return True
    while frame and frame.f_code not in files.UNINTERRUPTED:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return frame is not None


def _send_later(number: int) -> None:
    # On Windows os.kill would end the process.
    send = signal.raise_signal if os.name == "nt" else partial(os.kill, os.getpid())
    timer = threading.Timer(0.02, send, (number,))
    timer.daemon = True
    timer.start()


@files.uninterrupted
def ignore_signals() -> None:
    """Ignore the signals from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


# ---- Streams -------------------------------------------------------------------------------------


LOST: list[OSError] = []  # why output was dropped, unless it is only that nobody reads any more


class Sink(io.FileIO):
    """A stream whose failed writes are dropped: a closed pipe or a full device ends no work."""

    def write(self, data: Any) -> int:
        """Write, or pretend to."""
        try:
            return super().write(data)
        except BrokenPipeError:
            pass
        except OSError as error:
            LOST.append(error)
        return len(data)


def set_up_streams() -> None:
    """Make stdout and stderr take everything: no stream, a lost pipe, letters it has not.

    0, 1 and 2 are opened where they are closed, or the next file would get a stream's number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stderr", "stdout"):
        stream = getattr(sys, name)
        if stream is None:  # closed at the start, as under pythonw or by >&-
            stream = open(os.devnull, "w", errors="replace")  # noqa: PTH123, SIM115
        elif type(stream) is io.TextIOWrapper:  # put there by nobody else
            stream.reconfigure(errors="backslashreplace")
            raw = getattr(stream.buffer, "raw", stream.buffer)  # under python -u the buffer itself
            if type(raw) is io.FileIO:  # no console of Windows
                sink = io.BufferedWriter(Sink(raw.fileno(), "w", closefd=False))
                how = (stream.encoding, "backslashreplace", None, stream.line_buffering)
                stream = io.TextIOWrapper(sink, *how)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)  # which the interpreter flushes at its end
