"""
The screens of tools/demo.py and tools/sim.py: plain lines, or a panel that is drawn by rich.

What is shown tells a story, an object with `elapsed`, seconds, and `events`, a list of (seconds,
style, text).
"""

import sys

# The sixteen colours only: those the user's own theme has made legible.
STYLES = {"good": "green", "bad": "red", "cut": "bold magenta", "plain": "default"}
_MARKS = {"good": "●", "bad": "○", "cut": "✗", "plain": "·"}


class PlainScreen:
    """Lines for a log file: one for each event, and status(story) every EVERY seconds."""

    EVERY = 1  # s

    def __init__(self):
        self._next = self.EVERY

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def event(self, story, event):
        """Print what happened."""
        print("%6.1f s  %s" % (event[0], event[2]), flush=True)

    def tick(self, story):
        """Print how things are, if it is time."""
        if story.elapsed >= self._next:
            self._next = story.elapsed - story.elapsed % self.EVERY + self.EVERY
            print("%6.1f s    %s" % (story.elapsed, self.status(story)), flush=True)

    def status(self, story):
        """Return how things are, in a line."""
        raise NotImplementedError

    def result(self, lines, good):
        """Print the verdict."""
        print("\n".join(lines), flush=True)


class LiveScreen:
    """A panel that is drawn anew every EVERY seconds; its last state stays on the terminal."""

    EVERY = 0.1  # s
    SUBTITLE = ""

    def __init__(self, console):
        from rich.live import Live

        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._next = 0

    def __enter__(self):
        self._live.__enter__()
        return self

    def __exit__(self, *args):
        self._live.__exit__(*args)

    def event(self, story, event):
        """Show what happened."""
        self._next = 0
        self.tick(story)

    def tick(self, story):
        """Draw everything, if it is time."""
        if story.elapsed >= self._next:
            self._next = story.elapsed + self.EVERY
            self._live.update(self._frame(story), refresh=True)

    def result(self, lines, good):
        """Print the verdict, the last line in colour."""
        for line in lines[:-1]:
            self._console.print(line, markup=False, soft_wrap=True)
        style = "bold green" if good else "bold red"
        self._console.print(lines[-1], style=style, markup=False, soft_wrap=True)

    def title(self, story):
        """Return what the panel is headed with, in rich's markup."""
        raise NotImplementedError

    def parts(self, story, width, rows):
        """Return the panel's lines, Texts, for so many columns and rows beside the frame."""
        raise NotImplementedError

    def _frame(self, story):
        from rich.console import Group
        from rich.panel import Panel

        # Below the panel stay three lines: the result, one more, and the prompt.
        width = min(self._console.width, 110)
        parts = self.parts(story, width - 4, self._console.height - 3 - 2)
        for part in parts:
            part.no_wrap = True
            part.overflow = "ellipsis"
        return Panel(
            Group(*parts),
            title=self.title(story),
            subtitle=self.SUBTITLE,
            width=width,
            border_style="blue",
        )


def events(story, count):
    """Return the last `count` events, a Text each."""
    from rich.text import Text

    return _filled(
        [
            Text.assemble(f"{at:6.1f} s  ", (f"{_MARKS[style]} {text}", STYLES[style]))
            for at, style, text in story.events[-count:]
        ],
        count,
    )


def lines(found, count):
    """Return the last `count` of `found`, lines of text from anywhere, a Text each."""
    from rich.text import Text

    shown = ["".join(char if char.isprintable() else " " for char in one) for one in found]
    return _filled([Text("  " + one) for one in shown[-count:]], count)


def _filled(texts, count):
    """Return always as many, or the panel would jump."""
    from rich.text import Text

    return texts + [Text("")] * (count - len(texts))


def make_screen(plain, live):
    """Return the screen that suits standard output: plain(), or live(console)."""
    # A panel needs Unicode and some room; without them, plain lines say the same.
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    if sys.stdout.isatty() and unicode:
        try:
            from rich.console import Console
        except ImportError:
            return plain()
        console = Console(highlight=False)
        smart = console.is_terminal and not console.is_dumb_terminal
        if smart and console.width >= 60 and console.height >= 22:
            return live(console)
    return plain()
