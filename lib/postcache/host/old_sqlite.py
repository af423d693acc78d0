"""
Takes over the backlog of the package postcache 0.2.0: rows of SQLite become records, each once.

    OLD.db   table postcache (request_body TEXT), by rowid; opened read only, never changed

A group of rows becomes a segment of the log at one blow, or not at all:

    1  import-7.part is written and synced: the lines of a segment, with the numbers that are next
    2  import-a (or -b) is written and synced: what is taken over, and "import-7.part is next"
    3  import-7.part is renamed to 0000000954.log

The old database cannot be told in the same act; the name can. While import-7.part is there, its
rows are not taken over; once it is gone they are, for ever, also when the log has delivered and
deleted them since. So it does not matter when this is killed, nor who uses the log before it runs
again. import-a and -b take turns like the two copies of the cursor, and stay, so that the same
rows are not taken over once more.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tempfile
import urllib.parse

from ..log import Log
from ..log.journal import name_of
from ..log.line import OVERHEAD, decode, encode
from ..ports import Directory
from . import Problem, counted
from .reader import Files, parse

_VERSION = 1
_COPIES = ("import-a", "import-b")
_SOURCES = 32  # databases that a log remembers
_LONGEST = 1 << 20  # bytes of a mark
_LISTED = 100  # rows that are named in the result
_GROUP = Directory.segment  # bytes of a segment at most


class Source:
    """
    The old database, to be used in a `with`.

    Raises Problem for whatever is wrong with it.
    """

    def __init__(self, path):
        self.path = os.path.realpath(path)
        self.name = path
        self._db = self._copy = None

    def __enter__(self):
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise Problem("%s is no file." % self.name)  # a pipe would block
            with open(self.path, "rb") as f:
                head = f.read(100)
                self.inode = os.fstat(f.fileno()).st_ino
        except FileNotFoundError:
            raise Problem("%s: there is no such file." % self.name) from None
        except OSError as e:
            raise Problem("%s cannot be read: %s." % (self.name, e.strerror)) from None
        if head and head[:16] != b"SQLite format 3\0":
            raise Problem("%s is no SQLite database." % self.name)
        try:
            # What a power cut left unfinished has to be rolled back, which would change the file:
            # that is done in a copy.
            try:
                self._open(self.path, "ro" if head[18:20] != b"\2\2" else None)
            except sqlite3.OperationalError as e:
                if "locked" in str(e) or not self._unfinished(head):
                    raise
                self._open(self._copied(), "rw")
            return self
        except BaseException as e:
            self.__exit__()
            if isinstance(e, sqlite3.Error):
                raise self._problem(e) from None
            raise

    def __exit__(self, *args):
        if self._db:
            self._db.close()
        if self._copy:
            self._copy.cleanup()

    def _unfinished(self, head):
        return head[18:20] == b"\2\2" or os.path.exists(self.path + "-journal")

    def _copied(self):
        try:
            self._copy = tempfile.TemporaryDirectory(prefix="postcache-")
            copy = os.path.join(self._copy.name, "old.db")
            for suffix in ("", "-journal", "-wal"):
                if os.path.exists(self.path + suffix):
                    shutil.copyfile(self.path + suffix, copy + suffix)
        except OSError as e:
            raise Problem(
                "%s has an unfinished transaction, and cannot be copied to %s: %s. TMPDIR names "
                "another place." % (self.name, tempfile.gettempdir(), e.strerror)
            ) from None
        return copy

    def _open(self, path, mode):
        if not mode:
            raise sqlite3.OperationalError("WAL")
        if self._db:
            self._db.close()
        uri = "file:%s?mode=%s" % (urllib.parse.quote(os.fsencode(path)), mode)
        self._db = db = sqlite3.connect(uri, uri=True, isolation_level=None)
        db.text_factory = bytes
        db.execute("BEGIN")  # one view for all passes
        columns = [column[1] for column in db.execute("PRAGMA table_info(postcache)")]
        kind = db.execute("SELECT type FROM sqlite_master WHERE name = 'postcache'").fetchone()
        if b"request_body" not in columns or kind != (b"table",):
            raise Problem(
                "%s has no table postcache(request_body): it is no backlog of postcache 0.2.0."
                % self.name
            )
        found = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != (b"ok",):
            raise sqlite3.DatabaseError("malformed")

    def _problem(self, e):
        text = str(e)
        if "locked" in text or "busy" in text:
            return Problem("%s is in use: stop the old program first." % self.name)
        if "no such column" in text:  # WITHOUT ROWID
            return Problem("%s was not made by postcache 0.2.0: no rowid." % self.name)
        if "not a database" in text:
            return Problem("%s is no SQLite database, or its head is damaged." % self.name)
        if "malformed" in text or "corrupt" in text:
            return Problem(
                "%s is damaged; nothing was taken from it. What can be read goes to a new file "
                "with: sqlite3 OLD.db .recover | sqlite3 NEW.db" % self.name
            )
        return Problem("%s cannot be read: %s." % (self.name, text))

    def rows(self):
        """Yield (rowid, value, as bytes or None), in order."""
        last = None
        try:
            for rowid, value in self._db.execute(
                "SELECT rowid, request_body FROM postcache ORDER BY rowid"
            ):
                if last is not None and rowid <= last:
                    raise sqlite3.DatabaseError("malformed")
                last = rowid
                if isinstance(value, (int, float)):
                    value = repr(value).encode()
                yield rowid, value
        except sqlite3.Error as e:
            raise self._problem(e) from None


def _payload(value):
    """Return a row's JSON as a record's payload; ValueError(why not)."""
    if value is None:
        raise ValueError("empty")
    try:
        parse(value)
    except ValueError:
        raise ValueError("no JSON") from None
    # A raw newline in JSON is white space between tokens; a space in front has a meaning here.
    payload = value.strip(b" \t\r\n").replace(b"\r", b" ").replace(b"\n", b" ")
    if len(payload) > Directory.segment - OVERHEAD:
        raise ValueError("longer than a record may be, %d bytes" % (Directory.segment - OVERHEAD))
    return payload


class _Digest:
    """
    A hash over the rows from the first on: what is known again by it was taken over.

    Its last digits, `row`, are a hash of the last row alone: where that one is at its old place
    without those before it, the database has changed, whatever its name is now.
    """

    def __init__(self):
        self._hash = hashlib.sha256()
        self._row = b""

    def add(self, rowid, value):
        value = b"\0" if value is None else value
        self._row = b"%d %d %s" % (rowid, len(value), value)
        self._hash.update(self._row)

    @property
    def row(self):
        return hashlib.sha256(self._row).hexdigest()[:16]

    def __str__(self):
        return self._hash.hexdigest()[:32] + self.row


class Marks:
    """
    What a log has taken over: in import-a and import-b, each a line as the cursor is.

        generation [version, [[path, inode, rows, rowid, digest], ...], group]

    of each database how many rows, up to which rowid, and a hash of them; and the group that is
    next, [index of its database, rows, rowid, digest, part, first number], or null.

    Args:
        path: str, the log's folder; need not be there.

    Attributes: `sources`, list of lists; `unsettled`, True when a group was on its way;
    `generation`.
    """

    def __init__(self, path):
        self.generation = 0
        self.sources: list = []
        group = None
        for name in _COPIES:
            try:
                with open(os.path.join(path, name), "rb") as f:
                    # None does not unpack: that TypeError is the answer to damage, too.
                    generation, text = decode(f.readline(_LONGEST))  # pyright: ignore
                version, *state = parse(text)
                if version > _VERSION:
                    raise Problem(
                        "A newer postcache has imported into %s: update postcache here." % path
                    )
                if generation > self.generation:
                    sources, group = _checked(state)
                    self.sources = sources
                    self.generation = generation
            except (FileNotFoundError, NotADirectoryError):
                pass
            except (TypeError, ValueError, LookupError):
                pass  # torn: the other one counts
        self.unsettled = bool(group)
        if group:
            source, rows, rowid, digest, part, first = group
            if not os.path.exists(os.path.join(path, part)) and _has(path, first):
                self.sources[source][2:] = rows, rowid, digest

    def put(self, fs, group=None):
        """Make it durable, in the copy that was not written last."""
        self.generation += 1
        text = json.dumps([_VERSION, self.sources, group]).encode()
        fs.put(_COPIES[self.generation % 2], encode(self.generation, text))


def _checked(state):
    sources, group = state
    sources = [[str(path), *map(int, rest[:3]), str(rest[3])] for path, *rest in sources]
    if group:
        source, rows, rowid, digest, part, first = group
        if not str(part).startswith("import-") or "/" in part or not 0 <= source < len(sources):
            raise ValueError("group")
        group = source, int(rows), int(rowid), str(digest), part, int(first)
    return sources, group


def _has(path, first):
    """
    Whether the segment of number `first` is in the log, or was and is delivered.

    Where a rename is atomic it is: the part is gone. On FAT a power cut may take both names.
    """
    if os.path.exists(os.path.join(path, name_of(first))):
        return True
    try:
        return Files(path).cursor().acked >= first
    except Problem:
        return False


class _Plan:
    """
    What is to be done, found by reading all rows once, before anything is written.

    Args:
        source: a Source.
        marks: a Marks.
        anew: True to take all rows, whatever the marks say.

    Attributes: `total` rows; `before`, how many of them, from the first on, were taken over
    already; `new`, records to come, and `bytes` of them; `left`, how many rows are no records,
    `left_rows`, [{"rowid", "why"}] of the first of these; `known`, the place of the source in the
    marks, or None.
    """

    def __init__(self, source, marks, anew):
        self.total = self.before = self.new = self.bytes = self.left = 0
        self.known = None
        self.left_rows = []
        sources = [] if anew else marks.sources
        digest = _Digest()
        changed = None
        for rowid, value in source.rows():
            self.total += 1
            digest.add(rowid, value)
            try:
                self.bytes += len(_payload(value)) + OVERHEAD
                self.new += 1
            except ValueError as e:
                self.left += 1
                if len(self.left_rows) < _LISTED:
                    self.left_rows.append({"rowid": rowid, "why": str(e)})
            for i, (_, _, rows, last, known) in enumerate(sources):
                if last == rowid and rows == self.total and known == str(digest):
                    self.known = i
                    self.before = rows
                    self.new = self.bytes = 0
                elif last == rowid and known.endswith(digest.row):
                    changed = rows
        if self.known is None:
            for path, inode, rows, _, _ in sources:
                if rows and (source.path == path or source.inode == inode):
                    changed = rows
            if changed:
                raise Problem(
                    "%s has changed since %d of its rows were taken over: those are not its first "
                    "rows any more. Stop the old program; --anew takes all that is in it now."
                    % (source.name, changed)
                )


def take_over(database, path, anew=False, dry_run=False):
    """
    Append the rows of an old database to a log; what was taken over before is left out.

    Args:
        database: str, its file.
        path: str, the log's folder; made if it is missing.
        anew: True to take all rows.
        dry_run: True to change nothing.

    Returns a dict: imported, records; before, rows that were taken over earlier; left, rows that
    are no records, and left_rows, [{"rowid", "why"}] of the first hundred of them; first and last,
    numbers in the log, None for none. Raises Problem, and OSError as opening a log does.
    """
    with Source(database) as source:
        _check_folder(path)
        marks = Marks(path)
        plan = _Plan(source, marks, anew)
        result = {
            "imported": plan.new,
            "before": plan.before,
            "left": plan.left,
            "left_rows": plan.left_rows,
            "first": None,
            "last": None,
        }
        if not dry_run and (plan.total > plan.before or marks.unsettled):
            fs = Directory(path)
            try:
                if Marks(path).generation != marks.generation:
                    raise OSError(16, "in use")  # by another one of these, until just now
                result["first"], result["last"] = _Writer(source, fs, marks, plan).run()
            finally:
                fs.close()
        return result


def _check_folder(path):
    """Whoever names a folder by mistake shall not find a log in it."""
    if not path or path == ":memory:":
        raise Problem("PATH must be a folder on a disk.")
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except OSError:
        names = [path]
    if set(names) - {"lock", "lost+found"}:
        Files(path)


class _Writer:
    """
    Does what a plan says.

    Args:
        source: the Source.
        fs: the log's Directory, which this is the owner of.
        marks: the Marks of it.
        plan: the _Plan.
    """

    def __init__(self, source, fs, marks, plan):
        self._source = source
        self._fs = fs
        self._marks = marks
        self._plan = plan

    def run(self):
        """Return the first and the last number that was used, None for none."""
        first = self._next = self._open_log()
        self._settle()
        if self._plan.total > self._plan.before:
            self._begin()
            self._take()
            self._put_both()
        return (first, self._next - 1) if self._next > first else (None, None)

    def _open_log(self):
        """Open the log, bring all its records into segments, and return its next number."""
        fs = self._fs
        plan = self._plan
        log = Log(fs, None, 0)
        journal = log.journal
        try:
            empty = getattr(journal, "empty", None)
            if empty:  # behind a newer segment slots would not count
                empty(log.stored + 1, lambda size: None)
        finally:
            journal.close()
        free = fs.free()
        if free < plan.bytes + fs.reserve:
            raise Problem(
                "There is no room: the records need up to %s, %s are free where the log is, and "
                "%s have to stay free."
                % (counted(plan.bytes, "byte"), format(free, ","), format(fs.reserve, ","))
            )
        return log.stored + 1

    def _put_both(self):
        # Both copies: an older one would tell of a part that is gone by now.
        self._marks.put(self._fs)
        self._marks.put(self._fs)

    def _settle(self):
        """Take note of how the last run ended, and tidy up behind it."""
        if self._marks.unsettled:
            # Its rename is durable by now: opening the log has synced its folder.
            self._put_both()
        for name, _ in self._fs.files():
            if name[:7] == "import-" and name[-5:] == ".part":
                self._fs.remove(name)

    def _begin(self):
        """Find the place of this database among those that were taken over, or make one."""
        sources = self._marks.sources
        source = self._source
        plan = self._plan
        if plan.known is None:
            sources[:] = [s for s in sources if s[0] != source.path]
            if len(sources) >= _SOURCES:
                raise Problem(
                    "This log has taken over %d databases. Remove import-a and import-b from its "
                    "folder to make it forget them." % _SOURCES
                )
            plan.known = len(sources)
            sources.append([source.path, source.inode, 0, 0, ""])
        sources[plan.known][:2] = source.path, source.inode

    def _take(self):
        digest = _Digest()
        rows = last = size = 0
        lines = []
        for rowid, value in self._source.rows():
            line = b""
            if rows >= self._plan.before:
                try:
                    line = encode(self._next + len(lines), _payload(value))
                except ValueError:
                    pass  # told already
            if lines and size + len(line) > _GROUP:
                self._commit(lines, rows, last, digest)
                lines = []
                size = 0
            if line:
                lines.append(line)
                size += len(line)
            digest.add(rowid, value)
            rows += 1
            last = rowid
        if lines:
            self._commit(lines, rows, last, digest)
        else:
            self._marks.sources[self._plan.known][2:] = rows, last, str(digest)

    def _commit(self, lines, rows, last, digest):
        """Make a segment of `lines`, and with it all `rows` of them taken over."""
        fs = self._fs
        marks = self._marks
        part = "import-%d.part" % (marks.generation + 1)
        f = fs.open(part, "wb")
        try:
            f.write(b"".join(lines))
            f.flush()
        finally:
            f.close()
        state = rows, last, str(digest)
        marks.put(fs, (self._plan.known, *state, part, self._next))
        name = os.path.join(fs.path, name_of(self._next))
        os.rename(os.path.join(fs.path, part), name)
        fs.sync_directory(fs.path)
        marks.sources[self._plan.known][2:] = state
        self._next += len(lines)


def told(result, database, dry_run):
    """Yield what take_over() returned, as sentences."""
    records = counted(result["imported"], "record")
    if dry_run:
        yield "%s would be taken over from %s." % (records, database)
    elif result["first"] is None:
        yield "Nothing was taken over from %s." % database
    else:
        yield "%s taken over from %s: number %d to %d." % (
            records,
            database,
            result["first"],
            result["last"],
        )
    if result["before"]:
        yield "%s of its rows were dealt with before." % format(result["before"], ",")
    if result["left"]:
        yield "Not taken, as no records: %s, which %s only there:" % (
            counted(result["left"], "row"),
            "is" if result["left"] == 1 else "are",
        )
        for row in result["left_rows"]:
            yield "  rowid %d: %s" % (row["rowid"], row["why"])
        if result["left"] > len(result["left_rows"]):
            yield "  ..."
