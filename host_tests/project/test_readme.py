"""The README's way in: its examples and those of the API page run, and the package installs."""

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


def examples(page):
    """Return the code of each example in a page, a path below the project's folder."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_no_example_is_left_out():
    assert len(examples("README.md")) == 1
    assert len(examples("docs/api.md")) == 2


def test_the_example_for_a_raspberry_pi_delivers(tmp_path, server):
    code = examples("README.md")[0].replace("http://localhost:8080/readings", server.url)
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
    code = examples("docs/api.md")[0]
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
    code = examples("docs/api.md")[1]
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
