"""
What a program may give and ask for is the same wherever it is written down.

The options stand once in the code: in the signatures of POSTCache, assemble and Options. What
`stats` holds stands in stats.py. The docstrings, the type hints and the docs have to say the same.
"""

import ast
import inspect
import re

import pytest

from conftest import HERE, LIB
from postcache import POSTCache
from postcache.assemble import assemble
from postcache.options import Options
from postcache.uplink import Uplink

ROOT = HERE.parent
# The parts as a whole stand in the docstring and the hints only: programs have no use for them.
FOR_TESTS = {"ports"}


def _parameters(function, skip):
    """Return {name: default, or Parameter.empty} of all parameters but the first and **kwargs."""
    found = list(inspect.signature(function).parameters.values())[skip:]
    return {p.name: p.default for p in found if p.kind is not p.VAR_KEYWORD}


# By position, and by name only.
POSITIONAL = _parameters(POSTCache.__init__, 1)
HEADERS = {"headers": POSITIONAL.pop("headers")}
ASSEMBLED = _parameters(assemble, 3)
NAMED = {**ASSEMBLED, **_parameters(Options.__init__, 1), **HEADERS}
NAMED = {name: default for name, default in NAMED.items() if name not in POSITIONAL}


def _stub(file, name):
    """Return the ast.ClassDef of class `name` in a .pyi file of the package."""
    tree = ast.parse((LIB / "postcache" / file).read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _value(default):
    """Return what an ast default stands for."""
    if default is None:
        return inspect.Parameter.empty
    return ast.literal_eval(default)


def _written(function):
    """Return ({name: default} by position, and by name only) of an ast.FunctionDef."""
    arguments = function.args
    names = [argument.arg for argument in arguments.args]
    missing = [None] * (len(names) - len(arguments.defaults))
    positional = dict(zip(names, map(_value, missing + arguments.defaults)))
    positional.pop("self", None)
    named = [argument.arg for argument in arguments.kwonlyargs]
    return positional, dict(zip(named, map(_value, arguments.kw_defaults)))


def _page():
    """Return the text of the one page with the table of the options."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    (page,) = [text for text in texts if re.search(r"^\| *`flush_every` *\|", text, re.M)]
    return page


def _first_cells(table):
    """Return the names in backticks in the first cell of each row, one list for all."""
    cells = re.findall(r"^\|([^|]*)\|", table, re.M)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def _table(text, name):
    """Return the Markdown table in which `name` heads a row."""
    (found,) = [
        table
        for table in re.findall(r"(?:^\|.*\n)+", text, re.M)
        if re.search(r"^\| *`%s\b" % name, table, re.M)
    ]
    return found


# --- Options -------------------------------------------------------------------------------------


def test_an_option_stands_in_one_signature_or_in_two_that_agree():
    twice = ASSEMBLED.keys() & POSITIONAL.keys()
    assert twice == {"async_interval", "upload_limit"}
    for name in twice:
        assert ASSEMBLED[name] == POSITIONAL[name], name
    assert not Options.__init__.__kwdefaults__
    assert not _parameters(Options.__init__, 1).keys() & (ASSEMBLED.keys() | POSITIONAL.keys())
    assert len(POSITIONAL) == 7 and len(NAMED) > 15


def test_every_option_is_taken_and_no_other(tmp_path):
    given = {**POSITIONAL, **NAMED}
    given.update(http_endpoint=None, cache_path=str(tmp_path / "log"))
    POSTCache(**given).close()
    with pytest.raises(TypeError):
        POSTCache(None, str(tmp_path / "other"), any_other=1)


def test_the_docstring_has_every_option_the_positional_ones_in_order():
    heads = re.findall(r"^    (\w+(?:, \w+)*): ", inspect.getdoc(POSTCache), re.M)
    names = [name for head in heads for name in head.split(", ")]
    assert len(names) == len(set(names))
    assert names[: len(POSITIONAL)] == list(POSITIONAL)
    assert set(names) == POSITIONAL.keys() | NAMED.keys()


def test_the_type_hints_have_every_option_with_its_default():
    functions = {node.name: node for node in _stub("__init__.pyi", "POSTCache").body}
    positional, named = _written(functions["__init__"])
    assert list(positional.items()) == list(POSITIONAL.items())
    # A stub has no word for the module `ports`.
    assert named.pop("ports") is ... and NAMED["ports"].__name__ == "postcache.ports"
    assert named == {name: value for name, value in NAMED.items() if name != "ports"}


def test_the_table_of_options_is_complete_the_positional_ones_in_order():
    names = _first_cells(_table(_page(), "flush_every"))
    assert len(names) == len(set(names))
    assert names[: len(POSITIONAL)] == list(POSITIONAL)
    assert set(names) == (POSITIONAL.keys() | NAMED.keys()) - FOR_TESTS


def test_the_signature_above_the_table_has_every_option_with_its_default():
    (text,) = re.findall(r"^(?:    )?(POSTCache\(http_endpoint, [^)]*\))$", _page(), re.M)
    (function,) = ast.parse("def " + text + ": ...").body
    positional, named = _written(function)
    assert list(positional.items()) == list(POSITIONAL.items())
    assert named == {name: value for name, value in NAMED.items() if name not in FOR_TESTS}


# --- Methods -------------------------------------------------------------------------------------


def _public(cls):
    """Return {name: function} of what a class itself defines for others, properties too."""
    found = {}
    for name, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else value
        dunder = name in ("__enter__", "__exit__", "__len__", "__bool__")
        if inspect.isfunction(function) and (dunder or name[0] != "_"):
            found[name] = function
    return found


@pytest.mark.parametrize(
    ("cls", "file"), [(POSTCache, "__init__.pyi"), (Uplink, "uplink.pyi")], ids=["face", "uplink"]
)
def test_the_type_hints_have_every_method_with_its_parameters(cls, file):
    hints = {node.name: node for node in _stub(file, cls.__name__).body if hasattr(node, "args")}
    methods = _public(cls)
    assert set(hints) - {"__init__"} == set(methods)
    for name, function in methods.items():
        positional, named = _written(hints[name])
        written = {**positional, **named}
        for extra in (hints[name].args.vararg, hints[name].args.kwarg):
            if extra:
                written[extra.arg] = inspect.Parameter.empty
        there = list(inspect.signature(function).parameters.values())[1:]
        assert written == {p.name: p.default for p in there}, name


def test_the_type_hints_of_uplink_have_the_attributes_that_its_docstring_names():
    text = inspect.getdoc(Uplink).split("Attributes: ")[1]
    hints = _stub("uplink.pyi", "Uplink").body
    hinted = {node.target.id for node in hints if isinstance(node, ast.AnnAssign)}
    assert hinted == set(re.findall(r"`(\w+)`", text))


def test_every_method_is_in_the_table_of_methods():
    names = " ".join(_first_cells(_table(_page(), "poll")))
    for name in {**_public(Uplink), **_public(POSTCache)}:
        if name[0] != "_" and name not in ("add", "exchange", "idle_ms"):  # for faces
            assert re.search(r"\b%s\b" % name, names), name


# --- stats ---------------------------------------------------------------------------------------


class Server:
    """An HTTP port that gives `answer`, or raises it."""

    def post(self, url, headers, chunks, timeout):
        b"".join(chunks)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """The names in stats, of a cache that sends."""
    with POSTCache("http://server/", tmp_path_factory.mktemp("log"), http=Server()) as cache:
        return set(cache.stats)


def test_the_docstring_explains_every_number_of_stats(numbers):
    text = " ".join(inspect.getdoc(Uplink.stats).split())
    heads = re.findall(r"(?:[.;] |and )(\w+(?:, \w+)*): ", text)
    names = [name for head in heads for name in head.split(", ")]
    assert len(names) == len(set(names))
    assert set(names) == numbers


def test_the_docs_explain_every_number_of_stats(numbers):
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    names = _first_cells(_table(text, "age_ms"))
    assert len(names) == len(set(names))
    assert set(names) == numbers


def test_the_type_hints_have_every_number_of_stats(numbers):
    body = _stub("uplink.pyi", "_Stats").body
    assert {node.target.id for node in body} == numbers


def test_the_type_hints_have_the_type_of_every_number_of_stats(tmp_path):
    body = _stub("uplink.pyi", "_Stats").body
    types = {node.target.id: ast.unparse(node.annotation).split(" | ") for node in body}
    found = []
    with POSTCache(None, tmp_path / "store only") as cache:
        found.append(cache.stats)
    http = Server()
    with POSTCache("http://server/", tmp_path / "log", http=http) as cache:
        found.append(cache.stats)
        for http.answer in (OSError(111), (503, {}), (200, {})):
            cache.add_request(1)
            cache.flush()
            found.append(cache.stats)
    for stats in found:
        for name, value in stats.items():
            assert type(value).__name__.replace("NoneType", "None") in types[name], name
