"""What the README and the packages say is what is there: its examples run, its names exist."""

import os
import re
import ssl
import subprocess
import sys
import time

import pytest
from fake_server import FakeServer

from conftest import HERE, LIB, find_runtime

ROOT = HERE.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)


def test_there_are_three_examples():
    assert len(EXAMPLES) == 3


def test_the_example_for_a_raspberry_pi_delivers(tmp_path, server):
    code = EXAMPLES[0].replace("http://localhost:8080/readings", server.url)
    assert server.url in code
    runtime = find_runtime("cpython")
    done = subprocess.run(
        [*runtime.command, "-c", code],
        env=runtime.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("0 waiting {")
    assert server.receiver.lines == [{"t": 21.5}]


def test_the_example_for_a_board_delivers_micropython(tmp_path, server):
    code = EXAMPLES[1]
    for here, there in (
        ("http://192.168.1.10:8080/readings", server.url),
        ('"/cache"', '"%s/cache"' % tmp_path),
        ("while True:", "for _ in range(2):"),
        ("time.sleep(10)", "cache.flush()"),
    ):
        assert here in code
        code = code.replace(here, there)
    find_runtime("micropython").run("-c", code)
    assert server.receiver.lines == [{"t": 21.5}] * 2
    assert server.requests[0].json()["device"] == "greenhouse-1"


def test_the_example_with_a_certificate_delivers_micropython(tmp_path):
    trustme = pytest.importorskip("trustme", reason="install trustme (requirements-dev.txt)")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    code = EXAMPLES[2]
    with FakeServer(tls=context) as server:
        for here, there in (
            ("https://example.com/readings", server.url),
            ('"/cache"', '"%s/cache"' % tmp_path),
            ('"/ca.pem"', '"%s/ca.pem"' % tmp_path),
            ("wlan.isconnected", "lambda: True"),
            ("wdt.feed", "lambda: fed.append(1)"),
        ):
            assert here in code
            code = code.replace(here, there)
        code = (
            """
fed = []
from postcache import POSTCache
%s
cache.add_request({"t": 21.5})
assert cache.flush() and fed, cache.stats
"""
            % code
        )
        find_runtime("micropython").run("-c", code)
        (record,) = server.receiver.lines
    assert record["t"] == 21.5
    assert abs(record["ts"] - time.time()) < 3600


def test_every_file_that_the_readme_names_is_there():
    for name in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(?:\w+/)?(test_\w+\.py)`", README):
        assert list(HERE.glob("*/" + name)), name
    for name in re.findall(r"`((?:examples|host_tests|lib)/[\w./]+)`", README):
        assert (ROOT / name).exists(), name


def test_every_argument_and_method_is_in_the_readme():
    import inspect

    from postcache import POSTCache
    from postcache.assemble import assemble
    from postcache.options import Options

    names = list(inspect.signature(POSTCache.__init__).parameters)[1:-1]
    names += list(inspect.signature(Options.__init__).parameters)[1:]
    names += [
        name for name in list(inspect.signature(assemble).parameters)[3:-1] if name != "ports"
    ]
    assert len(names) > 20
    for name in names:
        assert "`%s`" % name in README, name
    for name in ("add_request", "flush", "poll", "run", "close", "stats"):
        assert name in README


def test_it_installs_with_pip_and_imports_from_there(tmp_path):
    target = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        + ["--target", target, ROOT],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "No module named pip" in done.stderr:
        pytest.skip("install pip")
    assert done.returncode == 0, done.stderr
    code = "import postcache; c = postcache.POSTCache(None, 'log'); print(postcache.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=str(target)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert str(target) in done.stdout
    assert (target / "postcache" / "py.typed").exists()
    assert (target / "postcache" / "ports" / "micropython" / "files.py").exists()


@pytest.mark.parametrize("where", ["lib on the path", "MICROPYPATH"])
def test_it_imports_on_micropython(where, tmp_path):
    runtime = find_runtime("micropython")
    code = "import sys; sys.path.insert(0, %r); import postcache; print(postcache.POSTCache)"
    env = {"MICROPYPATH": ".frozen"} if where == "lib on the path" else {}
    assert "POSTCache" in runtime.run("-c", code % str(LIB), **env).stdout
