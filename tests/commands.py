"""Commands called as their entry point calls them."""

import sys

from course.cli import status_of


def call(main, *arguments) -> int:
    """The exit status of a command; errors, and letters that a stream lacks, are printed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    return status_of(lambda: main([str(argument) for argument in arguments]))
