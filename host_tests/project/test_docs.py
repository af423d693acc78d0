"""
What the pages name is there: links, files, modules, promises, events. The example of a face runs.

The examples of the README and of the API page run in test_readme.py, and test_documented.py
compares the options, methods and numbers with the code.
"""

import re

import pytest
from fake_server import FakeServer

from conftest import HERE, LIB
from postcache import POSTCache

ROOT = HERE.parent
PACKAGE = LIB / "postcache"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "boards/*.md")
    for path in ROOT.glob(pattern)
)


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page):
    """Return the text of a page without its blocks of code."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def anchors(page):
    """Return what a link into a page can name: its headings, written as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def section(page, heading):
    """Return the text of a section of a page, up to the next heading of any level."""
    return re.split(r"^#+ ", read(page).split("# %s\n" % heading)[1], flags=re.MULTILINE)[0]


def first_column(text):
    """Return the code in the first cell of each row of the tables in `text`."""
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_the_pages_are_found():
    assert {"README.md", "CHANGELOG.md", "docs/api.md", "boards/README.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    folders = (ROOT, HERE, PACKAGE, PACKAGE.parent, (ROOT / page).parent)
    names = re.findall(r"`([\w.]+(?:/[\w.]+)+/?)`", prose(page))
    ours = r"^(bench|boards|docs|examples|host_tests|lib|tools)/|\.(py|md|json|service)$|/$"
    names = [name for name in names if re.search(ours, name)]
    for name in names:
        # settings.json is made from the example, and not committed.
        there = name.replace("/settings.json", "/settings.example.json")
        assert any((folder / there).exists() for folder in folders), name
    for name in re.findall(r"`(test_\w+\.py)`", prose(page)):
        assert list(HERE.glob("*/" + name)), name


def test_the_readme_lists_every_page():
    for page in PAGES:
        if page not in ("README.md", "boards/README.md"):
            assert "](%s)" % page in read("README.md"), page


def test_the_picture_of_the_house_has_every_module():
    listed = first_column(section("docs/ARCHITECTURE.md", "The house"))
    found = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    assert sorted(listed) == sorted(found)


def test_the_rooms_of_the_tests_are_those_that_are_there():
    listed = first_column(section("docs/ARCHITECTURE.md", "Where the tests are"))
    rooms = [path for path in HERE.iterdir() if path.is_dir() and path.name[0] not in "_."]
    assert sorted(listed) == sorted(path.name + "/" for path in rooms)


def test_each_promise_has_a_test():
    text = read("docs/promises.md")
    rows = re.findall(r"^\| ([SD]\d+) \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == ["S%d" % n for n in range(1, 13)] + [
        "D%d" % n for n in range(1, 8)
    ]
    for name, tests in rows:
        assert re.findall(r"`\w+/test_\w+\.py`", tests), name


def test_the_api_page_names_every_number_of_the_stats(tmp_path):
    with POSTCache(None, tmp_path / "log") as cache:
        keys = set(cache.stats)
    assert keys <= set(re.findall(r"`(\w+)`", section("docs/api.md", "Stats")))


def test_two_pages_have_every_event():
    code = (PACKAGE / "send" / "events.py").read_text(encoding="utf-8")
    kinds = sorted(set(re.findall(r'self\._tell\("(\w+)"', code)))
    assert len(kinds) == 6
    assert sorted(first_column(section("docs/operations.md", "Events"))) == kinds
    assert set(kinds) <= set(re.findall(r"`(\w+)`", section("docs/api.md", "Events")))


def test_the_example_of_a_wire_format_works(runtime, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", read("docs/ARCHITECTURE.md"), re.DOTALL)
    code = """
with Lines(%r, %r, {"Authorization": "Bearer abc"}, async_interval=3600) as cache:
    cache.add_request({"t": 21.5})
    cache.add_request([1])
    assert cache.flush(), cache.stats
"""
    with FakeServer(receiver=False) as server:
        runtime.run("-c", example + code % (server.url, str(tmp_path / "log")))
    assert server.errors == []
    body = b"".join(request.body for request in server.requests)
    assert body.replace(b" ", b"") == b'{"t":21.5}\n[1]\n'
    for request in server.requests:
        assert request.headers["content-type"] == "application/x-ndjson"
        assert request.headers["authorization"] == "Bearer abc"
