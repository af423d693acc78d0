"""`esp32`: of the classic one, or with FAKE_CHIP=esp32s3 of a newer one."""

import os

import world

if os.getenv("FAKE_CHIP") == "esp32s3":

    def mcu_temperature():
        if not world.state["sensor"]:
            raise OSError(5)
        return 41

else:

    def raw_temperature():
        if not world.state["sensor"]:
            raise OSError(5)
        return 128  # Fahrenheit: 53.3 degC
