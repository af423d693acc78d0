# Freezes postcache into a firmware: `include("path/to/postcache/manifest.py")` in the board's own
# manifest. What only CPython uses (ports/cpython.py, the type hints) stays out.

metadata(
    version="1.0.0.dev0",
    description="A power-cut-safe log that POSTs its records",
    license="MIT",
)

package(
    "postcache",
    files=(
        "__init__.py",
        "aio.py",
        "client.py",
        "held.py",
        "journal.py",
        "line.py",
        "log.py",
        "opening.py",
        "outbox.py",
        "retry.py",
        "slots.py",
        "stats.py",
        "ports/__init__.py",
        "ports/board.py",
        "ports/micropython.py",
    ),
    base_path="lib",
    opt=3,
)
