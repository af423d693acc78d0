# Freezes postcache into a firmware: `include("path/to/postcache/manifest.py")` in the board's own
# manifest. The files are those of package.json: what only CPython uses stays out.

import json

with open("package.json") as _f:  # the freezer runs a manifest in the manifest's own folder
    _mip = json.load(_f)

metadata(
    version=_mip["version"],
    description="A power-cut-safe log that POSTs its records",
    license="MIT",
)
package(
    "postcache",
    files=tuple(_target.split("/", 1)[1] for _target, _source in _mip["urls"]),
    base_path="lib",
    opt=3,
)
