"""
https:// against a real TLS server on loopback, on both runtimes.

Whoever is not who the URL and `cafile` say gets nothing: no byte of a request. Nothing is lost,
nothing acknowledged that was not delivered, no socket stays open, and no silence holds a call
beyond its deadline.
"""

import datetime
import json
import os
import ssl
import subprocess

import pytest
from fake_server import Answer, FakeServer

from conftest import HERE

trustme = pytest.importorskip("trustme", reason="install trustme (requirements-dev.txt)")

TIMEOUT = "10"
NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
RECORDS = [{"n": 0, "text": ""}, {"n": 1, "text": ""}, {"n": 2, "text": ""}]
HOST = "127.0.0.1"


class Certificates:
    """Authorities and servers' certificates: `contexts` of servers, `files` of trust, by name."""

    def __init__(self, folder):
        self.contexts = {}
        self.files = {}
        self.folder = folder
        ca = trustme.CA(organization_name="good")
        other = trustme.CA(organization_name="other")
        between = ca.create_child_ca()
        self._serve("good", ca.issue_cert(HOST))
        self._serve("behind an intermediate", between.issue_cert(HOST))
        self._serve("expired", ca.issue_cert(HOST, not_before=NOW - 9 * DAY, not_after=NOW - DAY))
        self._serve("of tomorrow", ca.issue_cert(HOST, not_before=NOW + DAY))
        self._serve("another host's", ca.issue_cert("127.0.0.2", "example.org"))
        self._serve("another authority's", other.issue_cert(HOST))
        own = trustme.CA(organization_name="own")  # its own authority
        leaf = own.issue_cert(HOST)
        self._serve("of an unknown authority", leaf)

        pem = ca.cert_pem.bytes()
        bundle = b"# \xc3\xa9: several of them\n\n" + other.cert_pem.bytes() + b"\nGood\n====\n"
        self._trust("PEM", pem)
        self._trust("PEM with CRLF", pem.replace(b"\n", b"\r\n"))
        self._trust("PEM without its last newline", pem.rstrip())
        self._trust("DER", ssl.PEM_cert_to_DER_cert(pem.decode()))
        self._trust("bundle", bundle + pem + b"the end\n")
        self._trust("intermediate", between.cert_pem.bytes())
        self._trust("other", other.cert_pem.bytes())
        self._trust("empty", b"")
        self._trust("text", b"no certificate\n")
        self._trust("binary", bytes(range(256)) * 4)
        self._trust("half of a PEM", pem[: len(pem) // 2])
        self._trust("a PEM and a half", other.cert_pem.bytes() + pem[: len(pem) // 2])
        self._trust("half of a DER", ssl.PEM_cert_to_DER_cert(pem.decode())[:100])
        self._trust("a key", leaf.private_key_pem.bytes())
        self._trust("bad base64", pem.replace(b"M", b"!", 3))

    def _serve(self, name, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.contexts[name] = context

    def _trust(self, name, data):
        self.files[name] = self.folder / (name.replace(" ", "-") + ".crt")
        self.files[name].write_bytes(data)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


class Program:
    """programs/https.py under a runtime, a flush at a time."""

    def __init__(
        self, runtime, url, path, cafile, verify="yes", timeout=TIMEOUT, records=3, size=0
    ):
        program = HERE / "programs" / "https.py"
        self.process = runtime.start(
            *(program, url, path, timeout, cafile or "-", verify, records, size),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.text = self.process.stdout.readline()
        self.first = json.loads(self.text)
        self.meals = 0

    def ask(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def flush(self):
        """Returns (all delivered, waiting, status, error)."""
        self.ask()
        line = self.process.stdout.readline()
        self.text += line
        *found, self.meals = json.loads(line)
        return found

    def sockets(self):
        """How many sockets the program has open; the server sees only that of a polite client."""
        folder = "/proc/%d/fd/" % self.process.pid
        return sum(os.readlink(folder + fd).startswith("socket:") for fd in os.listdir(folder))

    def __enter__(self):
        return self

    def __exit__(self, *args):
        try:
            self.process.stdin.close()
            code = self.process.wait(30)
            errors = self.process.stderr.read()
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.process.stderr.close()
        assert code == 0, errors
        assert "geheim" not in self.text + errors and "readings" not in self.text + errors


@pytest.fixture
def serve(certificates):
    """serve(name of a certificate) returns a FakeServer that is up, and closed at the end."""
    servers = []

    def start(name):
        servers.append(FakeServer(tls=certificates.contexts[name]).start())
        return servers[-1]

    yield start
    for server in servers:
        server.wait_closed()
        server.stop()
        assert server.errors == []
        assert server.receiver.errors == []


@pytest.mark.parametrize(
    ("certificate", "trust"),
    [
        ("good", "PEM"),
        ("good", "PEM with CRLF"),
        ("good", "PEM without its last newline"),
        ("good", "DER"),
        ("good", "bundle"),
        ("another authority's", "bundle"),
        ("behind an intermediate", "PEM"),
        ("behind an intermediate", "intermediate"),
    ],
)
def test_delivered_to_whom_we_trust(runtime, certificates, serve, tmp_path, certificate, trust):
    server = serve(certificate)
    with Program(runtime, server.url, tmp_path / "log", certificates.files[trust]) as program:
        assert program.flush() == [True, 0, 200, None]
    assert server.receiver.lines == RECORDS
    (request,) = server.requests
    assert request.headers["host"] == "%s:%d" % (HOST, server.port)
    assert request.headers["authorization"] == "Bearer geheim"
    assert server.refusals == []


@pytest.mark.parametrize(
    "certificate",
    [
        "expired",
        "of tomorrow",
        "another host's",
        "another authority's",
        "of an unknown authority",
    ],
)
def test_no_byte_for_whom_we_do_not_trust(runtime, certificates, serve, tmp_path, certificate):
    server = serve(certificate)
    path = tmp_path / "log"
    with Program(runtime, server.url, path, certificates.files["PEM"]) as program:
        done, waiting, status, error = program.flush()
        assert (done, waiting, status) == (False, 3, None)
        if runtime.name == "micropython":
            assert error == "OSError -9984"  # MBEDTLS_ERR_X509_CERT_VERIFY_FAILED
        else:
            assert error == "SSLCertVerificationError 1"
        server.wait_closed()
        assert program.sockets() == 0
    assert server.connections == 1
    assert server.requests == []
    assert len(server.refusals) == 1
    # The same server, taken as it is: what was kept is all there.
    with Program(runtime, server.url, path, None, "no", records=0) as program:
        assert program.flush() == [True, 0, 200, None]
    assert server.receiver.lines == RECORDS


def test_an_authority_that_is_not_named_is_not_trusted(runtime, certificates, serve, tmp_path):
    # One that the system, or the context of another instance, knows is no exception.
    server = serve("good")
    with Program(runtime, server.url, tmp_path / "log", certificates.files["other"]) as program:
        assert program.flush()[:3] == [False, 3, None]
    assert server.requests == []


def test_without_cafile_cpython_trusts_the_systems(certificates, serve, tmp_path, monkeypatch):
    from conftest import find_runtime

    server = serve("good")
    runtime = find_runtime("cpython")
    with Program(runtime, server.url, tmp_path / "log", None) as program:
        assert program.flush()[:3] == [False, 3, None]
    runtime.env["SSL_CERT_FILE"] = str(certificates.files["PEM"])
    with Program(runtime, server.url, tmp_path / "log", None, records=0) as program:
        assert program.flush()[:2] == [True, 0]


def test_without_cafile_micropython_says_what_to_do(tmp_path):
    from conftest import find_runtime

    runtime = find_runtime("micropython")
    with Program(runtime, "https://127.0.0.1:1/readings", tmp_path / "log", None) as program:
        kind, text = program.first
    assert kind == "ValueError"
    assert "cafile" in text and "verify=False" in text


@pytest.mark.parametrize(
    "trust",
    [
        "empty",
        "text",
        "binary",
        "half of a PEM",
        "a PEM and a half",
        "half of a DER",
        "a key",
        "bad base64",
    ],
)
def test_a_cafile_that_is_none_is_refused_at_once(runtime, certificates, tmp_path, trust):
    url = "https://127.0.0.1:1/readings"
    with Program(runtime, url, tmp_path / "log", certificates.files[trust]) as program:
        kind, text = program.first
    assert kind == "ValueError"
    assert text.startswith("cafile: ")


def test_a_cafile_that_is_missing_is_named(runtime, tmp_path):
    missing = tmp_path / "no.crt"
    with Program(runtime, "https://127.0.0.1:1/readings", tmp_path / "log", missing) as program:
        kind, text = program.first
    assert kind in ("OSError", "FileNotFoundError")
    assert "no.crt" in text


BAD_ENDS = {
    "reset in the handshake": ("reset", True, None),
    "closed in the handshake": ("close", True, None),
    "silence in the handshake": ("hang", True, None),
    "silence after it": (None, True, Answer.hang()),
    "closed after the request": (None, True, Answer.close_after()),
    "closed after it was stored": (None, True, Answer.close_after(store=True)),
    "reset after the request": (None, True, Answer.reset_after()),
    "body cut, no goodbye": (None, False, Answer(200, body=b"hello", length=10, store=True)),
    "body cut, with goodbye": (None, True, Answer(200, body=b"hello", length=10, store=True)),
    "body hangs": (None, True, Answer.hang_in_answer(store=True)),
    "head cut, no goodbye": (None, False, Answer.raw(b"HTTP/1.1 200 OK\r\n", store=True)),
    "chunked, cut, no goodbye": (
        None,
        False,
        Answer(200, body=b"hello" * 9, chunked=True, cut=30, store=True),
    ),
    "drip": (None, True, Answer.drip(0.1, body=b"x" * 100, store=True)),
    "500": (None, True, Answer(500)),
    "302": (None, True, Answer.redirect(302)),
}


@pytest.mark.parametrize("name", BAD_ENDS)
def test_kept_and_delivered_later(runtime, certificates, serve, tmp_path, name):
    server = serve("good")
    server.hello, server.close_notify, answer = BAD_ENDS[name]
    if answer:
        server.script(answer)
    slow = "silence" in name or name in ("drip", "body hangs")
    with Program(
        runtime,
        server.url,
        tmp_path / "log",
        certificates.files["PEM"],
        timeout="1" if slow else TIMEOUT,
    ) as program:
        done, waiting, _, error = program.flush()  # it ends: the deadline is kept
        assert (done, waiting) == (False, 3)
        assert error
        assert server.connections == 1
        if name == "reset after the request" and runtime.name == "micropython":
            assert error == "OSError 104"
        if slow:
            assert error.split()[1] == "110"
            assert 1 < program.meals < 100  # it waits, and does not spin
        server.hello = None
        server.close_notify = True
        server.release()
        if runtime.name == "micropython" or name not in ("500", "302"):
            assert program.sockets() == 0
            server.wait_closed()
        assert program.flush()[:2] == [True, 0]
    assert server.receiver.lines == RECORDS


TAKEN = {
    "chunked": Answer(200, body=b"hello" * 50, chunked=True),
    "204": Answer(204),
    "long": Answer(202, body=b"x" * 100000),
    "to the end, with goodbye": Answer(200, body=b"hello", until_close=True),
    "slow": Answer.drip(0.001, body=b"ok"),
    "interim": Answer(200, interim=(100, 103)),
    "reset behind it": Answer(200, body=b"hello", end="reset"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_delivered(runtime, certificates, serve, tmp_path, name):
    server = serve("good")
    server.script(TAKEN[name])
    with Program(runtime, server.url, tmp_path / "log", certificates.files["PEM"]) as program:
        assert program.flush()[:2] == [True, 0]
    assert server.receiver.lines == RECORDS


def test_a_whole_answer_counts_though_its_end_is_rude(runtime, certificates, serve, tmp_path):
    # Nothing can be missing from what says how long it is.
    server = serve("good")
    server.close_notify = False
    server.default = Answer(200, body=b"hello", close=True)
    with Program(runtime, server.url, tmp_path / "log", certificates.files["PEM"]) as program:
        assert program.flush()[:2] == [True, 0]
    assert len(server.requests) == 1


def test_an_end_of_stream_that_nobody_vouches_for(runtime, certificates, serve, tmp_path):
    # RFC 9112, section 9.8: without a length only the server's goodbye says that this is all.
    # MicroPython's tls returns b"" for that and for a cut line alike, so there the head has to do.
    server = serve("good")
    server.script(Answer(200, body=b"x", until_close=True, store=True))
    server.close_notify = False
    with Program(runtime, server.url, tmp_path / "log", certificates.files["PEM"]) as program:
        assert program.flush()[0] == (runtime.name == "micropython")
        server.close_notify = True
        assert program.flush()[:2] == [True, 0]
    assert server.receiver.lines == RECORDS


def test_a_long_backlog_goes_through_piece_by_piece(runtime, certificates, serve, tmp_path):
    server = serve("good")
    count = 1000
    if runtime.name == "micropython":
        runtime.command = [*runtime.command, "-X", "heapsize=160k"]
    with Program(
        runtime, server.url, tmp_path / "log", certificates.files["PEM"], records=count, size=300
    ) as program:
        assert program.flush()[:2] == [True, 0]
    assert [record["n"] for record in server.receiver.lines] == list(range(count))
    assert max(request.size for request in server.requests) > 15000


def test_a_large_request_that_nobody_reads_ends_in_time(runtime, certificates, serve, tmp_path):
    server = serve("good")
    server.script(Answer.hang_before())
    with Program(
        runtime,
        server.url,
        tmp_path / "log",
        certificates.files["PEM"],
        timeout="1",
        records=1000,
        size=8000 if runtime.name == "cpython" else 300,
    ) as program:
        done, waiting, _, error = program.flush()
        assert (done, waiting) == (False, 1000)
        assert error.split()[1] == "110"
        server.release()


def test_plain_http_behind_the_port(runtime, certificates, tmp_path):
    with FakeServer() as server:
        url = "https" + server.url[4:]
        with Program(runtime, url, tmp_path / "log", certificates.files["PEM"]) as program:
            done, waiting, status, error = program.flush()
            assert (done, waiting, status) == (False, 3, None)
            assert error
            assert program.sockets() == 0
            server.wait_closed()
        assert server.receiver.batches == 0


def test_tls_behind_a_plain_url(runtime, serve, tmp_path):
    server = serve("good")
    with Program(runtime, "http" + server.url[5:], tmp_path / "log", None) as program:
        done, waiting, status, error = program.flush()
        assert (done, waiting, status) == (False, 3, None)
        assert error
        server.wait_closed()
    assert server.requests == []


def test_nobody_there(runtime, certificates, tmp_path):
    with FakeServer(tls=certificates.contexts["good"]) as server:
        server.down()
        path = tmp_path / "log"
        with Program(runtime, server.url, path, certificates.files["PEM"]) as program:
            assert program.flush()[:3] == [False, 3, None]


def test_a_connection_that_is_never_accepted_ends_in_time(runtime, certificates, tmp_path):
    with FakeServer() as server:
        server.deaf()
        for scheme in ("https", "http"):
            url = scheme + server.url[4:]
            path = tmp_path / scheme
            with Program(runtime, url, path, certificates.files["PEM"], timeout="1") as program:
                done, kept, _, error = program.flush()
                assert (done, kept) == (False, 3)
                assert error.split()[1] == "110"
                assert program.meals > 1


def test_a_plain_logger_loads_no_tls_micropython(tmp_path):
    from conftest import find_runtime

    runtime = find_runtime("micropython")
    code = (
        "import sys\nfrom postcache import POSTCache\n"
        "POSTCache('http://127.0.0.1:1/x', '%s')\n"
        "print([n for n in sys.modules if 'secure' in n or 'wire' in n])" % (tmp_path / "log")
    )
    assert runtime.run("-c", code).stdout.strip() == "[]"
