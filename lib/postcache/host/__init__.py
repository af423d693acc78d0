"""
What people use on a computer, and a board never loads: the command line, and what it needs.

CPython only. Nothing outside this folder imports it.
"""


class Problem(Exception):
    """What a person has to know, as a sentence: it is printed, and the command ends."""


def counted(n, noun):
    """Return "1 record", "1,234 records"."""
    return "%s %s%s" % (format(n, ","), noun, "" if n == 1 else "s")
