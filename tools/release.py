"""Check that what a release says of itself agrees everywhere, and write the lists for mip.

The version is the literal in lib/postcache/__init__.py. From it, and from the modules that are
there, follow the package lists that `mpremote mip install` reads, one for each part that can be
installed by itself (PARTS); manifest.py and tools/deploy.py read the core's list, too. The first
version in CHANGELOG.md, and what pip makes of pyproject.toml, have to say the same.

    python tools/release.py --write     write the lists anew; for after a module came or went
    python tools/release.py --check     compare everything; for each commit
    python tools/release.py             the same for a release, and build it into dist/:
                                        a version without .dev, a date in the changelog, all
                                        committed, no such tag yet; a wheel that holds the package,
                                        all of it and nothing else, and that imports

Exit status: 0, or 1 after a sentence for each thing that is wrong.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = "lib/postcache"

# The parts beyond the core. A part is written once its modules are there; its list leaves the
# core's files to package.json, which has to be installed as well.
PARTS = {
    "streamer.json": ("streamer.py",),
    "cache.json": ("store.py", "region.py", "cached.py", "resource.py"),
}
TIMEOUT = 300  # seconds, for each program that is run


def host_only(name):
    """Tell whether the module `name`, a path below the package, never goes onto a board."""
    return name.startswith(("host/", "ports/cpython/")) or name == "__main__.py"


def read_version(project):
    """Return the version that the package has, or None if it is no literal."""
    text = (project / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found.group(1) if found else None


def lists(project):
    """Return {file name: content} of the package lists as they should be."""
    root = project / PACKAGE
    names = {path.relative_to(root).as_posix() for path in root.rglob("*.py")}
    names = {name for name in names if not host_only(name)}
    parts = {}
    for file, modules in PARTS.items():
        if names.issuperset(modules):
            parts[file] = modules
            names.difference_update(modules)
    # Folders after files, as a reader would list them.
    parts["package.json"] = sorted(names, key=lambda name: ("/" in name, name))
    version = read_version(project)
    return {file: _mip(modules, version) for file, modules in parts.items()}


def _mip(modules, version):
    rows = ",\n    ".join(
        json.dumps([f"postcache/{name}", f"{PACKAGE}/{name}"]) for name in modules
    )
    return f'{{\n  "urls": [\n    {rows}\n  ],\n  "deps": [],\n  "version": "{version}"\n}}\n'


def disagreements(project):
    """Return what does not agree, a sentence each."""
    version = read_version(project)
    if not version:
        return [f"{PACKAGE}/__init__.py does not say __version__ as one literal"]
    found = []
    for file, content in lists(project).items():
        path = project / file
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            found.append(
                f"{file} is not what the modules and the version call for: run with --write"
            )
    for file in PARTS:
        if (project / file).exists() and file not in lists(project):
            found.append(f"{file} lists modules that are not there")
    newest = _changelog(project)
    if not newest:
        found.append("CHANGELOG.md has no heading `## [version] - date or unreleased`")
    elif newest[0] != version:
        found.append(f"CHANGELOG.md begins with {newest[0]}, the package is {version}")
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    if 'dynamic = ["version"]' not in text or 'attr = "postcache.__version__"' not in text:
        found.append("pyproject.toml does not take the version from the package")
    listed = re.search(r"^packages = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    packages = {
        str(path.parent.relative_to(project / "lib")).replace("/", ".")
        for path in (project / PACKAGE).rglob("__init__.py")
    }
    if not listed or set(re.findall(r'"([^"]+)"', listed.group(1))) != packages:
        found.append("pyproject.toml does not list these packages: " + ", ".join(sorted(packages)))
    return found


def _changelog(project):
    text = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## \[([^\]]+)\] - (\S+)$", text, re.MULTILINE)
    return found.groups() if found else None


def not_ready(project, version):
    """Return what stands against releasing `version` as it is, a sentence each."""
    found = []
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        found.append(f"{version} is not the version of a release (1.2.3 or 1.2.3rc1)")
    date = (_changelog(project) or (None, ""))[1]
    try:
        if datetime.date.fromisoformat(date) > datetime.date.today():
            found.append(f"CHANGELOG.md dates the release to the future: {date}")
    except ValueError:
        found.append(f"CHANGELOG.md says {date!r} where the date of the release belongs")
    if _run("git", "status", "--porcelain", cwd=project):
        found.append("there are changes that are not committed")
    if _run("git", "tag", "--list", "v" + version, cwd=project):
        found.append(f"there is a tag v{version} already")
    return found


def build(project, version):
    """Build the wheel into dist/ and try it; return what is wrong with it, a sentence each."""
    dist = project / "dist"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", str(dist), str(project), cwd=project)
    wheel = dist / f"postcache-{version}-py3-none-any.whl"
    if not wheel.exists():
        return [f"pip did not make dist/{wheel.name}: it reads another version"]
    found = []
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    root = project / "lib"
    wanted = {
        path.relative_to(root).as_posix()
        for pattern in ("*.py", "*.pyi", "py.typed")
        for path in (project / PACKAGE).rglob(pattern)
    }
    for verb, names in (("lacks", wanted - held), ("holds what it should not:", held - wanted)):
        if names:
            found.append(f"the wheel {verb} {', '.join(sorted(names))}")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        _run(python, "-m", "pip", "--quiet", "install", "--no-index", str(wheel), cwd=folder)
        code = "import postcache; from postcache import POSTCache; print(postcache.__version__)"
        said = _run(python, "-c", code, cwd=folder).strip()
        if said != version:
            found.append(f"the installed wheel says that it is {said}")
    return found


def _run(*command, cwd):
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Check and build a release of postcache.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="write the lists for mip anew")
    what.add_argument("--check", action="store_true", help="compare only; build nothing")
    parser.add_argument("--project", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    project = options.project.resolve()
    if options.write:
        for file, content in lists(project).items():
            (project / file).write_text(content, encoding="utf-8")
    found = disagreements(project)
    version = read_version(project)
    if not found and version and not options.write and not options.check:
        try:
            found = not_ready(project, version) or build(project, version)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            found = [str(error)]
    for sentence in found:
        print(f"release: {sentence}.", file=sys.stderr)
    if found:
        return 1
    if options.write or options.check:
        print(f"release: {version}, and everything agrees.")
    else:
        print(f"release: dist/ holds postcache {version}. Next: git tag v{version}, push it, and")
        print("upload dist/; boards install the tag with `mpremote mip install`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
