"""
What is on a board, what has to change, and how it is changed; on_board.py has the places.

    look -> plan -> stage, each file checked by its hash -> self-test -> change

The record on the board says what deploy wrote: {"version": str, "package": {path in the package:
[hash, ...]}, "files": {path: [hash, ...]}, "before": {path: where the file that was there before
is kept}}. It is written before anything else changes, with the hashes of the old and the new, and
again when all is done. So whenever that is stopped, what is ours can be told from what is not.
"""

import ast
import base64
import hashlib
import json
import re
from pathlib import Path

from postcache.host import BoardError, Problem

PIECE = 1536  # bytes of a file in one command: a board has room for a few times that

# On the board; the same as in on_board.py.
STAGE = "/postcache.new"
SHADOW = "/postcache"
PLACE = "/lib/postcache"
RECORD = "/lib/postcache.json"

_FILE = 0x8000  # what tell_kind() tells of one
_BEFORE = ".before-postcache"
_STAGED = {"postcache", "files", "record.0", "record.1", "old", "test"}
_SPARE = 16  # blocks: folders and their metadata, the self-test's log, the records


def say(text=""):
    """Print a line at once: a pipe's reader sees how far it has come."""
    print(text, flush=True)


def line(path, size, what):
    """Print a line about one file."""
    say(f"  {path.lstrip('/'):42} {size:>9,}  {what}")


def sha(data):
    """Return the SHA-256 of bytes, as a str."""
    return hashlib.sha256(data).hexdigest()


def _short(digest):
    return digest[:16]  # tells what we wrote from what others wrote: 64 bits do


def _is_module(name):
    return name.endswith((".py", ".mpy", ".pyi", "py.typed"))


def _staged(path):
    return f"{STAGE}/files/" + path[1:].replace("/", "!")


class Board:
    """
    A board that stands still: what is on it.

    Args:
        link: a board_link.Link that has entered.

    Attributes: `files`, {path: (bytes, SHA-256)} of what has been looked at; `record` and
    `config`, dicts: the record, and the settings that are on the board.

    All of it raises Problem.
    """

    def __init__(self, link):
        self.link = link
        link.run(_code())
        # Torn only by a power cut on FAT: then the stage has it.
        self.record = self._json(RECORD) or self._json(STAGE + "/record.0")
        self.config = self._json("/settings.json")
        self.files = {}

    def get(self, path):
        """Return the content of a file, bytes; b"" if it is not there."""
        return self.link.get(path) if self.link.ask("tell_kind", path) == _FILE else b""

    def _json(self, path):
        try:
            found = json.loads(self.get(path))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def recorded(self, name):
        """Return a part of the record, a dict."""
        found = self.record.get(name)
        return found if isinstance(found, dict) else {}

    def is_ours(self, path, digest):
        """Return True if a file with this SHA-256 is what deploy wrote there."""
        return _short(digest) in self.recorded("files").get(path, ())

    def names(self, path):
        """Return the names in a folder, or () if it is none."""
        told = self.link.call("names", path)
        return tuple(told[0]) if told else ()

    def has(self, path):
        """Return True if there is a file or a folder at `path`."""
        return bool(self.link.ask("tell_kind", path))

    def look(self, paths):
        """Add files, and all files below folders, to `files`."""
        for path, size, digest in self.link.call("scan", list(paths)):
            self.files[path] = size, digest

    def below(self, folder):
        """Return {path below it: (bytes, SHA-256)} of what is in `files` below `folder`."""
        folder += "/"
        return {p[len(folder) :]: known for p, known in self.files.items() if p.startswith(folder)}

    def put(self, path, data):
        """Write a staged file, and check what has arrived."""
        told = []
        for at in range(0, len(data) or 1, PIECE):
            piece = base64.b64encode(data[at : at + PIECE])
            told = self.link.call("put", path, piece, not at, at + PIECE >= len(data))
        self._check(path, told, sha(data))

    def copy(self, path, target):
        """Copy a file into the stage, and check the copy."""
        self._check(target, self.link.call("copy", path, target), self.files[path][1])

    def _check(self, path, told, digest):
        if not told or told[0][1] != digest:
            raise Problem(
                f"{path} has arrived damaged: the flash may be worn out, or the cable is bad. "
                "What was on the board before is still in place; run the same command again."
            )


def _code():
    """Return on_board.py without what a board does not need: comments, docstrings, indentation."""
    source = Path(__file__).resolve().with_name("on_board.py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del node.body[0]
    text = ast.unparse(tree)
    return re.sub(r"^( +)", lambda m: " " * (len(m[1]) // 4), text, flags=re.MULTILINE)


class Plan:
    """
    What has to be done to a board so that it has what it shall have.

    Args:
        board: a Board; its `files` gets all that matters here.
        version: str, the package's.
        modules: {path in the package: bytes}; {} for no package.
        files: {path: bytes}, the rest, in the order in which it takes effect.
        place: folder that the package goes to; None for none.

    Attributes: `stage`, {path in the stage: bytes}; `swap`, True if the package changes; `moves`,
    [(path in the stage, path)]; `kept`, {path: where a file that is not ours goes}; `gone`, paths;
    `left`, paths of ours that somebody has changed, and that stay; `drops`, folders; `before`, see
    the record; `empty`, True if there is nothing to do.
    """

    def __init__(self, board, version, modules, files, place):
        self.board = board
        self.version = version
        self.modules = modules
        self.files = files
        self.place = place
        ours = board.recorded("files")
        package = board.recorded("package")
        self.before = dict(board.recorded("before"))
        board.look({*files, *ours, *self.before.values(), PLACE, STAGE})
        have = board.files

        self.drops = [
            p for p in (PLACE, SHADOW) if p != place and any(n in package for n in board.below(p))
        ]
        old = board.below(place) if place else {}
        self.swap = bool(modules) and {
            name: digest for name, (_, digest) in old.items() if _is_module(name)
        } != {name: sha(data) for name, data in modules.items()}
        self.stage = {}
        if self.swap:
            self.stage = {f"{STAGE}/postcache/{name}": data for name, data in modules.items()}

        self.moves = []
        self.kept = {}
        changed = [p for p, data in files.items() if p not in have or have[p][1] != sha(data)]
        for path in changed:
            if path in have and not board.is_ours(path, have[path][1]):
                name = self._free_name(path)
                self.before.setdefault(path, name)
                self.kept[path] = name
                self.moves.append((_staged(name), name))
        for path in changed:
            self.stage[_staged(path)] = files[path]
            self.moves.append((_staged(path), path))
        self.gone = []
        self.left = []
        for path in ours:
            if path not in files and path in have:
                same = board.is_ours(path, have[path][1])
                (self.gone if same else self.left).append(path)
        self.empty = not (self.swap or self.moves or self.gone or self.drops)

    def _free_name(self, path):
        """Return a name that no file has, for what is not ours."""
        n = 1
        name = path + _BEFORE
        while self.board.has(name):
            n += 1
            name = f"{path}{_BEFORE}-{n}"
        return name

    def records(self):
        """Return the record while files change, which knows the old and the new, and the last."""
        last = {
            "version": self.version,
            "package": {name: [_short(sha(data))] for name, data in self.modules.items()},
            "files": {path: [_short(sha(data))] for path, data in self.files.items()},
            "before": self.before,
        }
        both = dict(last)
        for part in ("package", "files"):
            old = self.board.recorded(part)
            new = last[part]
            both[part] = {
                name: sorted({*old.get(name, ()), *new.get(name, ())}) for name in {**old, **new}
            }
        return both, last

    def show(self):
        """Print what would be done."""
        have = self.board.files
        for name, data in self.modules.items():
            path = f"{self.place}/{name}"
            same = path in have and have[path][1] == sha(data)
            line(path, len(data), "same" if same else "would be copied")
        for path, data in self.files.items():
            line(path, len(data), "would be copied" if _staged(path) in self.stage else "same")
        for path, name in self.kept.items():
            say(f"  {path} is not this tool's, or was changed: it would be kept as {name}")
        for path in self.gone:
            line(path, have[path][0], "would be removed")
        for folder in self.drops:
            line(
                folder,
                sum(size for size, _ in self.board.below(folder).values()),
                "would be removed",
            )
        for path in self.left:
            say(f"  {path} was written by this tool and has been changed since: it would stay")

    def check_space(self):
        """Raise Problem unless all that is new fits beside all that is there."""
        block, total, free = self.board.link.ask("space")
        have = self.board.files
        sizes = [have[path][0] for path in self.kept]
        sizes += [
            len(data)
            for path, data in self.stage.items()
            if path not in have or have[path][1] != sha(data)
        ]
        need = (_SPARE + sum((size + block - 1) // block or 1 for size in sizes)) * block
        say(f"Flash    {free * block:,} of {total * block:,} bytes free, {need:,} needed")
        if need > free * block:
            raise Problem(
                f"The flash is too full: {need:,} bytes are needed, {free * block:,} are free. "
                "The new package must be complete before the old one goes, so both must fit. "
                "Remove files that you do not need, or readings that wait (--backup pulls them "
                "off the board first), and run the same command again. Nothing was changed."
            )

    def bring(self):
        """Bring all that is new into the stage; print a line for each file."""
        board = self.board
        have = board.files
        for path in [path for path in have if path.startswith(STAGE + "/")]:
            # What a run that was stopped has brought is good, if it is what is wanted now.
            if path not in self.stage or have[path][1] != sha(self.stage[path]):
                board.link.call("clear", path)
                del have[path]
        known = {digest: path for path, (_, digest) in have.items()}
        files = [(f"{self.place}/{n}", f"{STAGE}/postcache/{n}") for n in self.modules]
        files += [(path, _staged(path)) for path in self.files]
        wanted = [*self.modules.values(), *self.files.values()]
        for (name, path), data in zip(files, wanted):
            digest = sha(data)
            what = "same"
            if path in self.stage and path not in have:
                if digest in known:
                    board.copy(known[digest], path)
                else:
                    board.put(path, data)
                    what = "copied"
            line(name, len(data), what)
        for path, name in self.kept.items():
            board.copy(path, _staged(name))
            say(f"  {path} is not this tool's, or was changed: it is kept as {name}")
        if board.has(STAGE.upper()):
            # FAT: there the change copies, see on_board.move(), and all is there twice meanwhile.
            for path in self.stage:
                have.pop(path, None)
            self.check_space()
        for n, record in enumerate(self.records()):
            board.put(f"{STAGE}/record.{n}", json.dumps(record, separators=(",", ":")).encode())

    def carry_out(self):
        """Let the stage take effect, and remove what shall go."""
        board = self.board
        place = self.place if self.swap else None
        try:
            told = board.link.call("change", place, self.drops, self.moves, self.gone)
        except BoardError as error:
            raise Problem(
                f"{error.what} It was amid the change, and the same command goes on from there."
            ) from None
        for path in self.gone:
            line(path, board.files[path][0], "removed")
        for folder in self.drops:
            line(folder, sum(size for size, _ in board.below(folder).values()), "removed")
        for path in self.left:
            say(f"  {path} was written by this tool and has been changed since: it stays")
        for path, target in told:
            say(f"  {path} is no part of the package: it is {target} now")

    def self_test(self, moment):
        """Try the package on the board before it takes effect; print what it costs there."""
        say("Self-test on the board, in a log of its own")
        try:
            told = self.board.link.ask("self_test", STAGE if self.swap else None, moment)
        except BoardError as error:
            if error.errno == 28:
                raise
            raise Problem(
                f"The self-test failed. {error.what} What was there before stays."
            ) from None
        if not told["right"]:
            raise Problem(
                "The self-test failed: the record that was read back is another. What was there "
                "before stays; please report it with the board's name and MicroPython's version."
            )
        size = sum(map(len, self.modules.values()))
        heap, left, writes = told["heap"], told["left"], told["writes"]
        for name, text in (
            ("record", "added, log closed and opened again, read back, delivered"),
            (
                "durable",
                f"after {told['ms']} ms, with {writes} write(s), {told['journal']} journal",
            ),
            ("heap", f"{heap:,} bytes free; {left:,} with the log open: {heap - left:,} taken"),
            ("flash", f"{size:,} bytes of package, {told['flash']:,} for a log of one record"),
        ):
            say(f"  {name:8} {text}")


def recover(board):
    """
    See what a run that was stopped has left.

    Returns True if the package is still at SHADOW. Raises Problem when something that is not ours
    is where the package must go, or would be imported instead of it.
    """
    for name in (SHADOW + ".py", SHADOW + ".mpy"):
        if board.has(name):
            raise Problem(
                f"{name} on the board hides the package from `import postcache`: rename or remove "
                f"it (`mpremote fs rm :{name}`) and run the same command again."
            )
    strange = sorted(set(board.names(STAGE)) - _STAGED)
    if strange:
        raise Problem(
            f"{STAGE} on the board is not this tool's alone, it holds {strange[0]!r}: move that "
            "away and run the same command again."
        )
    names = board.names(SHADOW)
    if not names and not board.has(SHADOW):
        return False
    what = ""
    if not {"__init__.py", "__init__.mpy"} & set(names):
        what = "something else, perhaps a log"
    else:
        board.look([SHADOW])
        ours = board.recorded("package")
        for name, (_, digest) in board.below(SHADOW).items():
            if _short(digest) not in ours.get(name, ()):
                what = f"a copy that this tool did not write ({name} differs)"
    if what:
        raise Problem(
            f"{SHADOW} on the board is {what}, and `import postcache` finds that instead of the "
            "package: rename or remove it and run the same command again."
        )
    return True
