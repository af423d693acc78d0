"""
tools/structure.py sees each breach of the house's structure, and nothing else.

Most tests make a package of a few lines that breaks one rule; the last one is for the package
itself.
"""

import sys

import pytest

from conftest import HERE

sys.path.insert(0, str(HERE.parent / "tools"))
import structure

# What stands below lib/postcache in every project here; a test adds the module that it is about.
HOUSE = {
    "__init__.py": "def __getattr__(name):\n    from .client import POSTCache\n",
    "client.py": "from .uplink import Uplink\n",
    "uplink.py": "from .log import Log\nfrom .ports import Clock\n",
    "send/__init__.py": "from ..log.line import decode\n",
    "log/__init__.py": "from .line import decode\n",
    "log/line.py": "from ..ports import const\n",
    "ports/__init__.py": "import sys\n\nif sys.implementation.name == 'micropython':\n    pass\n",
    "host/__init__.py": "import sys\n\nfrom ..client import POSTCache\n\nsys.platform\n",
    "__main__.py": "from .host import main\n",
}


@pytest.fixture
def breaches(tmp_path):
    """A function that returns what is found in HOUSE with some files more: [(place, rule)]."""

    def check(files, tools=()):
        for folder, sources in (("lib/postcache", dict(HOUSE, **files)), ("tools", dict(tools))):
            (tmp_path / folder).mkdir(parents=True)
            for name, source in sources.items():
                path = tmp_path / folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(source)
        found = structure.check(tmp_path, say=lambda line: None)
        return [
            ("%s:%d" % (breach.path.replace("lib/postcache/", ""), breach.line), breach.rule)
            for breach in found
        ]

    return check


def test_a_house_that_keeps_the_rules_passes(breaches):
    assert breaches({}) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("log/line.py", "from ..send import Outbox\n"),
        ("log/line.py", "from .. import send\n"),
        ("log/line.py", "import postcache.send\n"),
        ("log/line.py", "from postcache.send import Outbox\n"),
        ("log/line.py", "from ..uplink import Uplink\n"),
        ("send/__init__.py", "from .. import uplink\n"),
        ("uplink.py", "from .client import POSTCache\n"),
        ("uplink.py", "from .store import Store\n"),
        ("client.py", "from . import __version__\n"),
        ("client.py", "from .host.reader import Files\n"),
        ("__init__.py", "from .host import main\n"),
        ("ports/__init__.py", "from ..log.line import decode\n"),
        ("log/line.py", "name = 'send'\n__import__(name)\n"),
        ("log/line.py", "import os, importlib.util\n"),
        ("log/line.py", "from importlib import import_module\n"),
    ],
)
@pytest.mark.parametrize("lazily", [False, True])
def test_an_import_that_points_up_is_told(breaches, name, source, lazily):
    line = source.count("\n")
    if lazily:
        source = "def f():\n" + "".join("    " + text for text in source.splitlines(True))
        line += 1
    found = breaches({name: source, "store.py": "", "host/reader.py": ""})
    assert found.count(("%s:%d" % (name, line), "arrows")) == 1


def test_an_import_within_a_layer_or_past_one_is_none(breaches):
    files = {
        "client.py": "from .line import decode\nfrom .log.line import encode\n",  # of another face
        "line.py": "from .uplink import Uplink\n",
        "host/cli.py": "from .. import __version__, client, uplink\nfrom ..send import Outbox\n",
    }
    assert breaches(files) == []


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"a.py": "from . import b\n", "b.py": "from .a import f\n"}, "a.py:1"),
        ({"a.py": "\nfrom .b import f\n", "b.py": "def f():\n    from . import a\n"}, "a.py:2"),
        (
            {"a.py": "from .b import f", "b.py": "from .c import f", "c.py": "import postcache.a"},
            "a.py:1",
        ),
        ({"log/line.py": "def f():\n    from . import Log\n"}, "log/__init__.py:1"),
        (
            {"a/__init__.py": "", "a/x.py": "from ..b import f", "b.py": "from .a.x import f"},
            "a/x.py:1",
        ),
        (  # b loads all of a for the sake of a.x
            {"a/__init__.py": "from ..b import f", "a/x.py": "", "b.py": "from .a.x import f"},
            "a/__init__.py:1",
        ),
        (  # b and c make the shortest one, and a is on the same strings
            {"a.py": "from .b import f", "b.py": "from .c import f", "c.py": "from . import a, b"},
            "b.py:1",
        ),
    ],
    ids=[
        "two",
        "in a function",
        "three",
        "module and package",
        "through a package",
        "loaded",
        "tangled",
    ],
)
def test_modules_in_a_circle_are_told_once_with_the_shortest_way_round(breaches, files, place):
    assert breaches(files) == [(place, "circles")]


def test_two_circles_are_told_apart(breaches):
    files = {
        "a.py": "from .b import f",
        "b.py": "from . import a, c",
        "c.py": "from .d import f",
        "d.py": "from .c import f",
    }
    assert breaches(files) == [("a.py:1", "circles"), ("c.py:1", "circles")]


def test_a_circle_in_the_tools_is_told(breaches):
    assert breaches({}, {"a.py": "import b\n", "b.py": "import a\n"}) == [
        ("tools/a.py:1", "circles")
    ]


ASKING = [
    "import sys\nsys.platform",
    "import sys\nsys.implementation.name == 'cpython'",
    "import sys\ndef f():\n    return sys.version_info > (3,)",
    "import sys as s\ns.version",
    "from sys import platform",
    "import os\nos.name == 'nt'",
    "import os\nos.uname()",
    "import platform",
    "import micropython",
    "from micropython import const",
    "import time\nhasattr(time, 'ticks_ms')",
    "import os.path\ngetattr(os, 'fsync', None)",
    "try:\n    import zlib\nexcept ImportError:\n    zlib = None",
    "try:\n    f()\n    import zlib\nexcept (ValueError, ImportError):\n    pass",
    "try:\n    import zlib\nexcept ModuleNotFoundError:\n    pass",
    "try:\n    import zlib\nexcept Exception:\n    pass",
    "try:\n    import zlib\nexcept:\n    pass",
]


@pytest.mark.parametrize("source", ASKING, ids=range(len(ASKING)))
@pytest.mark.parametrize("name", ["client.py", "send/x.py", "ports/x.py", "host/x.py"])
def test_only_ports_and_host_may_ask_for_their_runtime(breaches, name, source):
    found = [rule for place, rule in breaches({name: source}) if place.startswith(name)]
    assert found == (["runtime"] if name in ("client.py", "send/x.py") else [])


def test_what_is_no_question_for_the_runtime_passes(breaches):
    source = (
        "import os\nimport sys\nsys.modules\nos.stat('.')\nself.platform = self.os.name\n"
        "def f(http):\n"
        "    try:\n        from .b import c\n        c()\n    except Exception:\n        pass\n"
        "    return hasattr(http, 'close')\n"
    )
    assert breaches({"a.py": source, "b.py": ""}) == []


OWN = """
class A:
    _shared = 0
    __slots__ = ("_slot",)
    f = lambda self: self._x

    def __init__(self):
        self._x = super()._x

    @classmethod
    def make(cls):
        return cls._shared + A._shared

    def __eq__(self, other):
        return self._x == other._x and other._slot and other._f()

    def _f(self):
        def g():
            return self._x
        return g, lambda: self._x, getattr(self, "_x"), [self._x for _ in ()]

def h(a):
    return a.__class__, a._replace(b=1), _private
"""
FOREIGN = """
class B:
    def f(self, b, other):
        b._x
        self.b._x
        other._y
        def g(self):
            return self._x
        me = self
        me._x
        b._z = other._z
        self._w = self._v + other._v

    def h(a, self):
        self._x

def f(self):
    self._x
    super._x
    getattr(self, "_x")
    setattr(self, "_x", 1)
    f().__x
"""


def test_an_object_may_touch_its_own_privates(breaches, monkeypatch):
    monkeypatch.setattr(structure, "LIMIT", 0)
    assert breaches({"a.py": OWN}) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (FOREIGN, [4, 5, 6, 8, 10, 11, 11, 12, 15, 18, 19, 20, 21, 22]),
        ("from .log import _x\nfrom .log import x, _y\nimport postcache._log\n", [1, 2, 3]),
        (
            "from . import _own\nfrom ._own import x\nimport _a\nfrom .log._line import x\n",
            [4],
        ),
    ],
    ids=["attributes", "names", "modules"],
)
def test_each_reach_into_the_privates_of_others_is_told(breaches, monkeypatch, source, lines):
    monkeypatch.setattr(structure, "LIMIT", 0)
    found = breaches({"a.py": source, "_own.py": "", "log/_line.py": ""})
    assert found == [("a.py:%d" % line, "privates") for line in lines]


def test_so_many_reaches_a_thousand_lines_are_allowed_and_no_more(breaches):
    source = "a._x\nb._x\n"
    lines = sum(text.count("\n") for text in HOUSE.values())
    padding = "\n" * (1000 - lines - 2)
    assert breaches({"a.py": source + padding}) == []


def test_one_reach_more_than_allowed_tells_them_all(breaches):
    source = "a._x\nb._x\n"
    lines = sum(text.count("\n") for text in HOUSE.values())
    padding = "\n" * (1000 - lines - 3)
    assert breaches({"a.py": source + padding}) == [
        ("a.py:1", "privates"),
        ("a.py:2", "privates"),
    ]


def test_a_breach_is_a_line_with_its_place_its_rule_and_a_failing_exit_status(tmp_path, capsys):
    (tmp_path / "tools").mkdir()
    folder = tmp_path / "lib" / "postcache" / "log"
    folder.mkdir(parents=True)
    (folder / "line.py").write_text("\nfrom ..client import POSTCache\n")
    (folder.parent / "client.py").write_text("a._x\n" + "\n" * 600)
    assert structure.main(["--project", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert (
        "lib/postcache/log/line.py:2: log imports client, of the higher layer faces [arrows]\n"
        in out
    )
    assert "lib/postcache/client.py:1: reaches for a._x [privates] (allowed, and counted)\n" in out
    assert "structure: lib/postcache: 1 reaches into privates in 603 lines, 1.7 per 1,000" in out
    (folder / "line.py").write_text("")
    assert structure.main(["--project", str(tmp_path)]) == 0


def test_the_package_keeps_its_structure():
    assert structure.check(HERE.parent, say=lambda line: None) == []
