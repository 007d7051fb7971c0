"""The entry point of all commands: streams, signals, errors in one line, the exit status.

    if __name__ == "__main__":
        run(main)

What `main` needs that takes long to import, such as torch, is imported inside it: until `run` has
been called, Ctrl-C ends in a traceback.
"""

from __future__ import annotations

import _thread
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TextIO

from course.files import describe_error

INTERRUPTED = "Interrupted: what was not reported above as written is as it was."
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # by name: Windows has not all of them
DOUBLE = 2.0  # seconds in which a second signal belongs to the first, whose clean-up goes on


def run(main: Callable[[], int | None], interrupted: str = INTERRUPTED) -> NoReturn:
    """Run a command and exit with its status.

    Its status is what `main` returns, None being 0; 1 after an error, which is told in one line if
    its class has `user_facing = True` or it is the file system's; 128 + the signal's number after
    a signal: 130 for Ctrl-C. What cannot be printed is dropped, and the work goes on.
    """
    received: list[int] = []
    try:
        set_up_streams()
        set_up_signals(received)
        status = main() or 0
    except SystemExit as stop:  # argparse's
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException as error:
        ignore_signals()
        if isinstance(error, KeyboardInterrupt) and not received:  # at the very start
            received.append(signal.SIGINT)
        # After a signal any error follows from it: libraries turn KeyboardInterrupt into others.
        line = interrupted if received else one_line(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        status = 128 + received[0] if received else 1
    ignore_signals()  # the work is done: the interpreter's own end is not interrupted
    sys.stdout.flush()
    sys.exit(status)


def one_line(error: BaseException) -> str | None:
    """Return what a user is told of an error; None for a bug, whose traceback is needed."""
    if getattr(type(error), "user_facing", False):
        text = str(error)
    elif isinstance(error, OSError):
        text = describe_error(error)
    elif isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):  # torch's
        text = "not enough memory; close other programs, or use a machine with more"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        text = f"{error.name} is not installed; pip install -r requirements.txt"
    else:
        return None
    return "Error: " + " ".join(text.splitlines())


# ---- Signals -------------------------------------------------------------------------------------


def set_up_signals(received: list[int]) -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, and note their numbers.

    A signal that was ignored before, such as SIGHUP under nohup, stays so.
    """
    process, last = os.getpid(), -DOUBLE

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != process:  # a forked worker: it ends, and says nothing
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif _is_importing(frame):  # many a library catches everything there
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
    for number in _signals():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _is_importing(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _send_later(number: int) -> None:
    main = threading.main_thread().ident or 0
    if hasattr(signal, "pthread_kill"):
        timer = threading.Timer(0.02, signal.pthread_kill, (main, number))
    else:  # Windows
        timer = threading.Timer(0.02, _thread.interrupt_main, (number,))
    timer.daemon = True
    timer.start()


def ignore_signals() -> None:
    """Ignore the signals from now on."""
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)


def _signals() -> list[int]:
    return [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]


# ---- Streams -------------------------------------------------------------------------------------


class Sink(io.RawIOBase):
    """A stream whose failed writes are dropped: a closed pipe or a full device ends no work."""

    def __init__(self, raw: io.RawIOBase, warn: Callable[[OSError], None]) -> None:
        self.raw, self.warn = raw, warn
        self.failed = False

    def write(self, data: Any) -> int | None:
        """Write, or pretend to; the first failure is told, unless nobody reads any more."""
        try:
            return self.raw.write(data)
        except OSError as error:
            if not self.failed and not isinstance(error, BrokenPipeError):
                self.failed = True
                self.warn(error)
            return len(data)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor below."""
        return self.raw.fileno()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self.raw.isatty()


def set_up_streams() -> None:
    """Make stdout and stderr take everything: no stream, a lost pipe, letters it has not."""
    _fill_descriptors()
    sys.stderr = sys.__stderr__ = _tolerant(sys.stderr, lambda error: None)
    sys.stdout = sys.__stdout__ = _tolerant(sys.stdout, _warn_of_stdout)


def _warn_of_stdout(error: OSError) -> None:
    print(f"note: {describe_error(error, 'stdout', writing=True)}", file=sys.stderr)


def _fill_descriptors() -> None:
    """Open 0, 1 and 2 where they are closed, or the next file would get a stream's number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _tolerant(stream: TextIO | None, warn: Callable[[OSError], None]) -> TextIO:
    if stream is None:  # closed at the start, as under pythonw or by >&-
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    if type(stream) is not io.TextIOWrapper:
        return stream  # put there by someone else
    stream.flush()
    encoding, lines = stream.encoding, stream.line_buffering
    raw = stream.detach()
    raw = getattr(raw, "raw", raw)
    return io.TextIOWrapper(
        io.BufferedWriter(Sink(raw, warn)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=lines,
    )
