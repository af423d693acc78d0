"""`ntptime`: a server that answers when there is a link and the world says so."""

import machine
import utime
import world

host = "pool.ntp.org"
timeout = 1


def settime():
    if world.state["ntp"] == "slow":
        world.spend(20000)  # a name server that does not answer
    if world.state["ntp"] != "up" or not world.state["link"]:
        raise OSError(-2)
    world.spend(60)
    t = utime.gmtime((world.BEGIN + world.at()) // 1000)
    machine.RTC().datetime((t[0], t[1], t[2], t[6], t[3], t[4], t[5], 0))
