"""The log that is on a board: found, pulled off to the host, removed when that is asked for."""

import datetime
import os
import re
from pathlib import Path

from board_plan import line, say, sha
from postcache.host import Problem

# The names that a log's files have; see docs/format.md.
_FILE = re.compile(
    r"((cursor|clock|import)-[ab]|import-\d+\.part|\d{10,}\.log|rejected(-2)?\.log|requeue|lock"
    r"|\+[0-3]/\d{1,2})\Z"
)
_SAFE = re.compile(r"[A-Za-z0-9+_-][A-Za-z0-9+._-]*\Z")  # a name that any host may be given


def folders(board):
    """Return the folders of a board's logs: the one of its settings, and any other one in /."""
    chosen = board.config.get("cache")
    chosen = "/" + (chosen.strip("/") if isinstance(chosen, str) else "cache")
    found = []
    for path in dict.fromkeys([chosen, *("/" + name for name in board.names("/"))]):
        if {"cursor-a", "cursor-b"} & set(board.names(path)):
            found.append(path)
    return found


def backup(board, found, target):
    """
    Copy logs to the host, each file compared by its hash.

    Args:
        board: a board_plan.Board.
        found: list of their folders.
        target: str, the folder on the host; a new one is made in it, <device>-<UTC time>, which
            has its name once all is in it.

    Raises Problem.
    """
    device = re.sub(r"[^A-Za-z0-9_-]+", "-", str(board.config.get("device", ""))).strip("-")
    moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    name = f"{device or board.link.board}-{moment}"
    place = Path(target) / name
    n = 1
    while place.exists():
        n += 1
        place = Path(target) / f"{name}-{n}"
    part = place.with_name(place.name + ".part")
    total = count = 0
    say(f"Backup of {', '.join(found)}")
    board.look(found)
    try:
        part.mkdir(parents=True)
        for folder in found:
            for file, (size, digest) in board.below(folder).items():
                path = f"{folder}/{file}"
                if not all(map(_SAFE.match, path[1:].split("/"))):
                    say(f"  {path!r} is left out: no file of a log has such a name")
                    continue
                data = board.get(path)
                if sha(data) != digest:
                    raise Problem(
                        f"{path} could not be read twice alike, so there is no backup: the flash "
                        "may be worn out. Nothing on the board was changed."
                    )
                copy = part / path[1:]
                copy.parent.mkdir(parents=True, exist_ok=True)
                with open(copy, "wb") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
                line(path, size, "saved")
                total += size
                count += 1
        part.rename(place)
    except OSError as error:
        raise Problem(
            f"The backup cannot be written to {part} ({error.strerror}); nothing on the board was "
            "changed."
        ) from None
    say(f"  {count} files, {total:,} bytes, are in {place}")


def remove(board, found, dry):
    """Remove logs, and nothing else that is in their folders; with `dry` only say so."""
    board.look(found)
    for folder in found:
        files = board.below(folder)
        # The cursors last: until then it is a log, with less in it.
        for name in sorted(files, key=lambda name: name.startswith("cursor-")):
            path = f"{folder}/{name}"
            if not _FILE.match(name):
                say(f"  {path} is no part of a log: it stays")
                continue
            if not dry:
                board.link.call("clear", path)
            line(path, files[name][0], "would be removed" if dry else "removed")
        for path in () if dry else (*(f"{folder}/+{n}" for n in range(4)), folder):
            if board.has(path) and not board.names(path):
                board.link.call("clear", path)
