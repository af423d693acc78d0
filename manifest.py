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
        "ages.py",
        "aio.py",
        "client.py",
        "events.py",
        "gzipped.py",
        "held.py",
        "journal.py",
        "line.py",
        "log.py",
        "opening.py",
        "options.py",
        "outbox.py",
        "refused.py",
        "rejects.py",
        "retry.py",
        "slots.py",
        "stamps.py",
        "stats.py",
        "ports/__init__.py",
        "ports/answer.py",
        "ports/board.py",
        "ports/epoch.py",
        "ports/micropython.py",
        "ports/micropython_streams.py",
        "ports/secure.py",
        "ports/wire.py",
    ),
    base_path="lib",
    opt=3,
)
