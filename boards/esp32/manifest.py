# A firmware with postcache in it: its code takes flash instead of RAM, and needs no copying.
# In MicroPython's ports/esp32:
#
#     make BOARD=ESP32_GENERIC FROZEN_MANIFEST=/path/to/postcache/boards/esp32/manifest.py
#
# main.py and settings.json stay files. A file on the board goes before a frozen one of its name.

include("$(PORT_DIR)/boards/manifest.py")  # what the firmware has anyway
include("../../manifest.py")
for _name in ("clock.py", "settings.py", "wifi.py"):
    module(_name, base_path="../common", opt=3)
module("board.py", opt=3)
