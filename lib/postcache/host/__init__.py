"""
What people use on a computer, and a board never loads: the command line, and what it needs.

CPython only. Nothing outside this folder imports it, but for the tools.
"""

import contextlib
import os
import re


class Problem(Exception):
    """What a person has to know, as a sentence: it is printed, and the command ends."""


class BoardError(Problem):
    """
    A board raised an exception.

    Args:
        text: str, its traceback.

    Attributes: `errno`, an OSError's number, else None; `what`, the sentence without advice.
    """

    def __init__(self, text):
        last = (text.strip().splitlines() or [""])[-1]
        name = last.partition(":")[0]
        number = re.match(r"OSError: (?:\[Errno |\()?(\d+)", last)
        self.errno = int(number[1]) if number else None
        # Of other exceptions only the name: the text may hold anything.
        name = name if name.isidentifier() else "an exception"
        if self.errno is not None:
            with contextlib.suppress(ValueError):
                name = f"OSError {self.errno} ({os.strerror(self.errno)})"
        if name == "MemoryError":
            self.what = "The board has too little memory free."
            more = "If that does not help, its boot.py takes too much."
        else:
            self.what = f"The board stopped with {name}."
            more = "If it says so again, the cable or the flash may be bad."
        super().__init__(
            f"{self.what} Press its reset button and run the same command again. {more}"
        )


def counted(n, noun):
    """Return "1 record", "1,234 records"."""
    return "%s %s%s" % (format(n, ","), noun, "" if n == 1 else "s")
