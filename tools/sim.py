"""
No board? Real MicroPython firmware for the Pico W runs here, in the emulator rp2040py.

    tools/sim.py (this process)                                  processes of their own
        Pico W: CPU, flash, USB port = socket://127.0.0.1:N  <--  tools/deploy.py
          |  boards/common/main.py on MicroPython, with Wi-Fi
          |  192.168.7.7:8080 and :123 in its network
        FakeServer on 127.0.0.1, and an answer to NTP

One after the other: the board is switched on, empty; deploy.py installs postcache and the program,
as on any board; readings arrive. Then the power is cut in the middle of a write to the flash, and
the board is switched on again with what is on its flash then: as readings are stored; when a batch
has arrived, as the board notes that; and once more as it starts after that. At the end `compare`
holds what the board said it had stored against what the server has. Nothing here knows what the
result ought to be.

The flash is as bad as a real one: programming only ever clears bits, and a page or a sector that
the power left in the middle is half old and half new, with bits in between that are neither.
Nothing leaves this machine: what the board sends to other addresses is refused or lost.

    python tools/sim.py [--firmware FILE.uf2 | --version 1.25.0] [--cuts 3] [--seed N] [--keep]

In a terminal the screen is drawn with rich; elsewhere it is plain lines. The same seed draws the
same cuts, but a board's work depends on time, so a run is not repeated in every detail. The CPU is
emulated at about a fifteenth of its speed: a run takes some five minutes.
CPython 3.10 or later.
Exit status: 0, 1 if anything went wrong with a reading, 2 if there was no firmware to run.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import logging
import os
import pathlib
import random
import re
import struct
import sys
import time

import screens  # beside this file
import stories
from stories import ROOT, StoryError, passed

VERSION = "1.25.0"  # of MicroPython: the one that our tests pin
FLASH = 2 << 20  # bytes of flash that a Pico W has
SERVER = "192.168.7.7"  # in the board's network; what it stands for is on our loopback
PORT = 8080
NTP = 123
EVERY, SEND_EVERY = 2, 8  # s: as settings.json has them

BOOT = 60  # s for the board to show up on USB
INSTALL = 600  # s for deploy.py
PATIENCE = 240  # s for anything else; switching the radio on takes 20 s here, or 60 on a busy PC
TICK = 0.1  # s between two looks at everything, and two frames
SLACK = 0.02  # s that the board's clock may be ahead of ours
UNHEARD = 1 << 20  # bytes that wait for a client that does not read, before it is cut off

_PROGRAM, _ERASE, _ERASE_BLOCK = 0x02, 0x20, 0xD8  # commands of a flash chip
_SIZES = {_ERASE: 4096, _ERASE_BLOCK: 65536}
_UF2 = struct.Struct("<8I")
_RP2040 = 0xE48BFF56  # the family that a UF2 file for this chip names


class NoFirmware(StoryError):
    """There is nothing to run."""


# -- the firmware ---------------------------------------------------------------------------------


def read_uf2(path):
    """
    Return the flash image in a UF2 file: bytes, from the beginning of flash.

    Raises NoFirmware if it cannot be read, is not whole, or is not MicroPython for the Pico W.
    """
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise NoFirmware(f"{path} cannot be read: {error.strerror}.") from None
    image = bytearray()
    blocks = 0
    for at in range(0, len(data) - 511, 512):
        start, second, flags, address, size, number, count, family = _UF2.unpack_from(data, at)
        (end,) = struct.unpack_from("<I", data, at + 508)
        if (start, second, end) != (0x0A324655, 0x9E5D5157, 0x0AB16F30) or size > 476:
            raise NoFirmware(f"{path} is no UF2 file.")
        if flags & 0x2000 and family != _RP2040:
            raise NoFirmware(f"{path} is for another chip than the RP2040 of a Pico W.")
        offset = address - 0x10000000
        if not 0 <= offset <= FLASH - size:
            raise NoFirmware(f"{path} does not fit the flash of a Pico W.")
        image.extend(b"\xff" * (offset + size - len(image)))
        image[offset : offset + size] = data[at + 32 : at + 32 + size]
        blocks += 1
        if number != blocks - 1 or blocks > count or (at + 1024 > len(data) and blocks < count):
            raise NoFirmware(f"{path} is not whole; get it once more.")
    if not blocks or len(data) % 512:
        raise NoFirmware(f"{path} is no UF2 file.")
    if b"Pico W with RP2040" not in image:
        raise NoFirmware(f"{path} is not MicroPython for the Pico W.")
    return bytes(image)


def find_firmware(path, version):
    """
    Return the flash image of the firmware in the file `path`, or, if that is None, of that
    version, which the emulator downloads once. Raises NoFirmware.
    """
    if path is not None:
        return read_uf2(path)
    logging.getLogger("rp2040py").setLevel(logging.CRITICAL)  # one sentence is enough
    from rp2040py.utils.firmware_retrieve import MICROPYTHON, retrieve

    try:
        found = retrieve(MICROPYTHON, version, "pico_w")
    except (OSError, ValueError):
        found = None
    if found is None:
        raise NoFirmware(
            f"MicroPython {version} for the Pico W could not be downloaded; name a file that you "
            "have with --firmware FILE.uf2 (make sim FIRMWARE=FILE.uf2), as "
            "https://micropython.org/download/RPI_PICO_W gives it."
        )
    try:
        return read_uf2(found)
    except NoFirmware:
        # What a broken download has left would be found again each time.
        with contextlib.suppress(OSError):
            os.unlink(found)
        raise


# -- the power ------------------------------------------------------------------------------------


def interrupt(flash, command, rng):
    """
    Do as much of a command to a flash chip as it had done when the power went.

    Args:
        flash: bytearray, changed as far as it came.
        command: bytes: code, address in three bytes, and data if it programs.
        rng: random.Random, says how far that was.

    Returns a sentence that says so, or None for a command that changes nothing.
    """
    at = int.from_bytes(command[1:4], "big")
    if command[0] == _PROGRAM:
        data = command[4:260]
        # Bytes of 255 change nothing, and many writes end with them: not there.
        done = rng.randrange(len(data.rstrip(b"\xff")) or 1)
        for i in range(done):
            flash[at + i] &= data[i]
        # Bits go from 1 to 0 one by one, and in this byte some have not gone yet.
        flash[at + done] &= data[done] | rng.randrange(256)
        return f"page at {at:#x} programmed up to byte {done} of {len(data)}"
    if command[0] in _SIZES:
        size = _SIZES[command[0]]
        at &= -size
        # All of a sector is erased at the same time: its bits rise to 1 in no order.
        old = int.from_bytes(flash[at : at + size], "big")
        risen = rng.getrandbits(8 * size)
        if rng.random() < 0.5:
            risen &= rng.getrandbits(8 * size)
        flash[at : at + size] = (old | risen).to_bytes(size, "big")
        return f"sector at {at:#x} half erased"
    return None


class Power:
    """
    The power of a flash chip, which can be cut in the middle of a command.

    Args:
        ssi: the chip's controller in the emulator; its commands come by here from now on.
        flash: bytearray.
        on_cut: callable(sentence), when the power is cut; nothing is written from then on.

    Attributes: `commands`, how many have changed the flash.
    """

    def __init__(self, ssi, flash, on_cut):
        self.commands = 0
        self._ssi = ssi
        self._flash = flash
        self._on_cut = on_cut
        self._left = 0
        self._rng = random.Random()
        self._off = False
        self._apply = ssi._apply_command
        ssi._apply_command = self._command

    def cut(self, commands, rng):
        """Cut it within the so many-th command from now, 1 is the next."""
        self._left = commands
        self._rng = rng

    def _command(self):
        ssi = self._ssi
        command = bytes(ssi._tx_buffer)
        changes = len(command) > 3 and (
            command[0] in _SIZES or (command[0] == _PROGRAM and len(command) > 4)
        )
        if self._off:
            ssi._tx_buffer = bytearray()
        elif not (changes and ssi._write_enabled):
            self._apply()
        else:
            self.commands += 1
            self._left -= 1
            if self._left:
                self._apply()
                return
            self._off = True
            ssi._tx_buffer = bytearray()
            self._on_cut(interrupt(self._flash, command, self._rng))


# -- the network ----------------------------------------------------------------------------------


def make_network(mcu, send, connect):
    """
    Return what the board's Wi-Fi leads to: one server, and an answer to NTP.

    Args:
        mcu: the emulated chip.
        send: callable(frame), gives the board an Ethernet frame.
        connect: coroutine function that connects to the server; returns (reader, writer).
    """
    from rp2040py.external.cyw43 import nat, net

    async def open_connection(host, port):
        if (host, port) != (SERVER, PORT):
            raise ConnectionRefusedError(f"{host}:{port} is not in this network")
        return await connect()

    class Clock:
        """Takes what is sent by UDP; of that it answers NTP and nothing else."""

        def maybe_handle(self, eth):
            ip = net.parse_ipv4(eth.payload)
            udp = net.parse_udp(ip.payload) if ip else None
            if not ip or not udp or (_dotted(ip.dst_ip), udp.dst_port) != (SERVER, NTP):
                return True
            seconds = int(time.time()) + 2208988800  # NTP counts from 1900
            answer = struct.pack(">4B11I", 0x24, 1, 6, 0xEC, *[0] * 9, seconds & 0xFFFFFFFF, 0)
            answer = net.pack_udp(ip.dst_ip, ip.src_ip, NTP, udp.src_port, answer)
            answer = net.pack_ipv4(ip.dst_ip, ip.src_ip, net.IP_PROTO_UDP, answer)
            send(net.pack_ethernet(eth.src_mac, nat.GATEWAY_MAC, net.ETHERTYPE_IPV4, answer))
            return True

    bridge = nat.NatBridge(mcu, send)
    # Its own would carry everything into the real network, DNS to a public server included.
    bridge._udp = Clock()  # pyright: ignore[reportAttributeAccessIssue]
    bridge._tcp = nat.TcpReflector(mcu, send, connect_fn=open_connection)
    return bridge


def _dotted(ip):
    return ".".join(map(str, ip))


# -- the board ------------------------------------------------------------------------------------


class UsbPort:
    """
    The board's USB port, as a TCP port of this machine: one client at a time, and it is there
    only while the board is on USB, so that a restart looks as it does with a real board.

    Args:
        cdc: the emulated chip's USB console.
        port: TCP port, 0 for any free one.
        on_data: callable(bytes), given all that the board prints.

    Attributes: `number` of the TCP port.
    """

    def __init__(self, cdc, port, on_data):
        self.number = port
        self._usb = cdc.usb
        self._on_data = on_data
        self._server = None
        self._client = None
        self._input = bytearray()
        self._asked = None  # (endpoint, bytes) that the board is ready to take
        self._taken = asyncio.Event()
        self._others = self._usb.on_endpoint_read
        self._reset = self._usb.on_reset
        self._task = None
        self._usb.on_endpoint_read = self._on_read
        self._usb.on_reset = self._on_reset
        cdc.on_serial_data = self._on_output
        cdc.on_device_connected = self._on_connected

    def close(self):
        """Take it away, as when the plug is pulled."""
        if self._server:
            self._server.close()
            self._server = None
        if self._client:
            self._client.transport.abort()
            self._client = None
        self._input.clear()
        self._asked = None
        self._taken.set()

    @property
    def ready(self):
        """Whether it is there."""
        return self._server is not None

    def _on_connected(self):
        self._task = asyncio.ensure_future(self._listen())

    async def _listen(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.number)
        self.number = self._server.sockets[0].getsockname()[1]

    def _on_reset(self):
        self.close()
        if self._reset:
            self._reset()

    async def _serve(self, reader, writer):
        if self._client:
            writer.transport.abort()  # busy
            return
        self._client = writer
        try:
            while self._client is writer:
                data = await reader.read(4096)
                if not data:
                    break
                self._input += data
                self._taken.clear()
                self._feed()
                await self._taken.wait()
        except (OSError, asyncio.CancelledError):  # the latter amid Ctrl-C, which would be noisy
            pass
        finally:
            if self._client is writer:
                self._client = None
            writer.close()

    def _on_output(self, data):
        data = bytes(data)
        if self._client:
            self._client.write(data)
            if self._client.transport.get_write_buffer_size() > UNHEARD:
                self._client.transport.abort()
        self._on_data(data)

    def _on_read(self, endpoint, size):
        if not endpoint:
            self._others(endpoint, size)
            return
        # The emulator's own console answers at once, with nothing if there is nothing, and the
        # board asks again at once: it would never come to rest. A real host lets it wait.
        self._asked = endpoint, size
        self._feed()

    def _feed(self):
        if self._asked and self._input:
            endpoint, size = self._asked
            self._asked = None
            self._usb.endpoint_read_done(endpoint, bytes(self._input[:size]))
            del self._input[:size]
        if not self._input:
            self._taken.set()


class Board:
    """
    A Pico W. Its clock is never ahead of ours, and behind whenever it computes much.

    Args:
        firmware: bytes, as read_uf2 returns them.
        connect: coroutine function that connects to the server; returns (reader, writer).
        on_output: callable(text), given each line that the board prints.

    Attributes: `flash`, bytes: what is on it while the power is off; `powered`; `cut`: None, or
    the sentence that says where the power was cut; `written`: how often the flash was changed
    since power-on; `port`: the TCP port for its USB port.
    """

    def __init__(self, firmware, connect, on_output):
        self.flash = firmware.ljust(FLASH, b"\xff")
        self.powered = False
        self.cut = None
        self.port = 0
        self._connect = connect
        self._on_output = on_output
        self._line = b""
        self._task = None
        self._usb = None
        self._power = None

    @property
    def written(self):
        """How often the flash has been changed since power-on."""
        return self._power.commands if self._power else 0

    async def power_on(self):
        """Switch it on and wait until it is on USB. Raises StoryError if it does not come up."""
        from rp2040py.boards import BOARDS, build_rp2040_from_spec
        from rp2040py.device.bootrom import BOOTROM_B1
        from rp2040py.external.cyw43 import Cyw43439
        from rp2040py.memory_map import FLASH_START_ADDRESS
        from rp2040py.simulator import Simulator
        from rp2040py.usb.cdc import USBCDC
        from rp2040py.utils.logging import ConsoleLogger, LogLevel

        radio = Cyw43439()
        spec = BOARDS["pico_w"]
        extras = [extra for extra in spec.extras if extra is not Cyw43439]
        mcu = build_rp2040_from_spec(
            type(spec)(mcu=spec.mcu, extras=(*extras, lambda: radio), firmware=spec.firmware)
        )
        self._simulator = simulator = Simulator(rp2040=mcu)
        simulator.bind_loop()
        mcu.load_bootrom(BOOTROM_B1)
        mcu.logger = ConsoleLogger(LogLevel.ERROR)
        mcu.flash[:FLASH] = self.flash
        mcu.on_break = self._on_break
        self._mcu = mcu
        self._network = make_network(mcu, radio.bus.queue_rx_ethernet_frame, self._connect)
        radio.bus.nat_bridge = self._network
        self._power = Power(mcu.ssi, mcu.flash, self._on_cut)
        cdc = USBCDC(mcu.usb_ctrl)
        self._usb = UsbPort(cdc, self.port, self._on_data)
        self._line = b""
        self.cut = None
        self.powered = True
        mcu.core.pc = FLASH_START_ADDRESS
        self._task = asyncio.ensure_future(self._run(simulator))
        end = time.monotonic() + BOOT
        while not self._usb.ready:
            self.check()
            if time.monotonic() > end:
                raise StoryError(f"the board did not show up on USB within {BOOT} s")
            await asyncio.sleep(TICK / 10)
        self.port = self._usb.number

    def check(self):
        """Raise StoryError if the emulator has stopped, though nobody has cut the power."""
        if self._task and self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            if isinstance(error, StoryError):
                raise error
            if error:
                raise StoryError(f"the emulator failed: {type(error).__name__}: {error}")

    def warm(self, celsius):
        """Give the chip a temperature, in degrees: its sensor is the fifth of its ADC's inputs."""
        volts = 0.706 - 0.001721 * (celsius - 27)
        self._mcu.adc.channel_values[4] = round(volts / 3.3 * 4095)

    def cut_power(self, commands, rng):
        """Cut the power within the so many-th change of the flash from now; 1 is the next."""
        self._power.cut(commands, rng)

    async def power_off(self):
        """Switch it off at once, if it is on."""
        self._off()
        if self._task:
            await asyncio.wait({self._task}, timeout=BOOT)
            self.check()

    def _off(self):
        if self.powered:
            self.powered = False
            self._simulator.stopped = True
            self.flash = bytes(self._mcu.flash[:FLASH])
            self._usb.close()
            self._network.reset()

    def _on_cut(self, sentence):
        self.cut = sentence
        self._off()

    def _on_break(self, code):
        raise StoryError(f"the firmware has stopped at a breakpoint ({code})")

    def begin_line(self):
        """Forget what has been printed of a line that has not ended."""
        self._line = b""

    def _on_data(self, data):
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._on_output(line.decode("utf-8", "replace").rstrip("\r"))
        self._line = self._line[-4096:]

    async def _run(self, simulator):
        from rp2040py.execute_batch import execute_batch

        # The board's clock jumps whenever its CPU waits: an hour is gone in a second, and a server
        # that answers at once has taken minutes. So this alarm ends a batch that is ahead of us.
        ahead = 0.0
        begin = time.monotonic() - simulator.clock.nanos / 1e9

        def look():
            nonlocal begin, ahead
            ahead = begin + simulator.clock.nanos / 1e9 - time.monotonic()
            if ahead > SLACK:
                simulator.stopped = True
            elif ahead < -SLACK:  # it was busy: what it has lost it does not make up for
                begin -= ahead
            alarm.schedule(1000000)

        alarm = simulator.clock.create_alarm(look)
        alarm.schedule(1000000)
        while self.powered:
            simulator.stopped = False
            ahead = 0.0
            execute_batch(simulator, 1)
            await asyncio.sleep(ahead if ahead > SLACK else 0)


# -- the verdict ----------------------------------------------------------------------------------


def compare(told, records, cuts=0):
    """
    Hold what was stored against what arrived.

    Args:
        told: [number], in the order in which the board said that these were stored.
        records: [(stream, number, reading)], in order of arrival.
        cuts: how often the power was cut. Each time one reading may have been on the flash already
            when the board had not said so yet.

    Returns a Verdict.
    """
    problems = []
    for before, number in zip(told, told[1:]):
        if number <= before:
            problems.append(f"the board stored {number} after {before}")
    streams = list(dict.fromkeys(stream for stream, _, _ in records))
    if len(streams) > 1:
        problems.append(f"{len(streams)} streams arrived: {', '.join(streams)}")
    numbers = [number for _, number, _ in records]
    for before, number in zip(numbers, numbers[1:]):
        if number < before:
            problems.append(f"{number} arrived after {before}")
    for _, number, reading in records:
        if not isinstance(reading, dict) or not isinstance(reading.get("celsius"), (int, float)):
            problems.append(f"what arrived as {number} is no reading: {reading!r:.60}")
    return stories.judge("board", told, collections.Counter(numbers), cuts, problems)


def report(verdict, cuts):
    """Return the lines to print for a Verdict; the last one is the result."""
    over = f" over {cuts} power cut{'' if cuts == 1 else 's'}"
    return stories.report(verdict, "the power went before the board said so", over)


# -- the story ------------------------------------------------------------------------------------


class Sim(stories.Story):
    """
    What happens, and all there is to show about it.

    Args:
        firmware: bytes, as read_uf2 returns them.
        folder: path of a folder for files of ours.
        cuts: how often the power is cut.
        seed: for where it is cut.
        screen: with event(story, event), tick(story), say(story, line).

    Attributes: `said`, the last lines of deploy.py and of the board; `told`, the numbers of the
    readings that the board said it stored; `cuts`; `online`; `board`.
    """

    def __init__(self, firmware, folder, cuts, seed, screen):
        super().__init__(screen, self._on_request)
        self.said = collections.deque(maxlen=50)
        self.told = []
        self.cuts = 0
        self.online = False
        self.found = None  # how many readings wait on flash, as the board says when it starts
        self._folder = pathlib.Path(folder)
        self._wanted = cuts
        self._rng = random.Random(seed)
        self._running = False  # deploy.py is done: what the board prints is its program's
        self._armed = False
        self._again = 0
        self._wrong = []
        self.board = Board(firmware, self._connect, self._on_output)

    @property
    def waiting(self):
        """How many readings the board has told of that the server has not."""
        held = {number for _, number, _ in self.receiver.records}
        return sum(number not in held for number in self.told)

    async def run(self):
        """Play it all; returns the Verdict."""
        self._loop = asyncio.get_running_loop()
        self.server.start()
        try:
            try:
                await self._play()
            except StoryError as error:
                # The story has stuck, which is a failure, and what arrived tells more about it.
                self._wrong.append(str(error))
            with contextlib.suppress(StoryError):
                await self.board.power_off()
            # Not before: a thread of the server may still be busy with the last batch.
            self.server.stop()
            verdict = compare(self.told, self.receiver.records, self.cuts)
            return self._completed(verdict, self._wrong)
        finally:
            self.server.stop()

    async def _play(self):
        await self.board.power_on()
        self._event("good", "a Pico W with real firmware, its flash empty, is on USB")
        await self._install()
        await self._wait(lambda: self.told, "the board has stored nothing")
        self._event(
            "good", "the program stores readings, and switches the radio on, which takes a while"
        )
        await self._wait(lambda: self.arrived, "nothing has arrived")
        self._event("good", "the first readings have arrived")
        for number in range(self._wanted):
            await self._cut(number % 3)
            if number % 3 != 1 or number == self._wanted - 1:
                await self._restart()
        await self._wait(
            lambda: self.told and self.arrived and not self.waiting,
            "not all has arrived",
        )
        await self.board.power_off()
        self._event("plain", "all has arrived; the board is switched off")

    async def _install(self):
        settings = json.loads((ROOT / "boards" / "pico_w" / "settings.example.json").read_text())
        settings.update(
            device="sim-pico-w",
            endpoint=f"http://{SERVER}:{PORT}/readings",
            wifi_ssid="emulated",
            ntp_host=SERVER,
            every=EVERY,
            send_every=SEND_EVERY,
        )
        path = self._folder / "settings.json"
        path.write_text(json.dumps(settings))
        command = [str(ROOT / "tools" / "deploy.py"), "--board", "pico_w"]
        command += ["--port", f"socket://127.0.0.1:{self.board.port}", "--settings", str(path)]
        command += ["--no-follow", "--no-input"]
        self._event("plain", "python tools/deploy.py " + " ".join(command[1:5]) + " ...")
        deploy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        reading = asyncio.ensure_future(self._read(deploy.stdout))
        try:
            await self._wait(reading.done, "deploy.py has not ended", INSTALL)
            if await asyncio.wait_for(deploy.wait(), PATIENCE):
                raise StoryError(f"deploy.py ended with status {deploy.returncode}")
        finally:
            reading.cancel()
            if deploy.returncode is None:
                deploy.kill()
                await deploy.wait()
        self._running = True
        self.board.begin_line()
        self._event("good", "installed and tried on the board; the board starts again")

    async def _read(self, stream):
        while True:
            line = (await stream.readline()).decode("utf-8", "replace")
            if not line:
                return
            self._say(line.rstrip())

    async def _cut(self, kind):
        """Cut the power: 0 as readings are stored, 1 as one batch is delivered, 2 at the start."""
        if kind == 2:
            await self.board.power_off()
            await self.board.power_on()
            self.board.cut_power(self._rng.randint(1, 3), self._rng)
        else:
            have = len(self.told) + self._rng.randint(1, 5)
            await self._wait(lambda: len(self.told) >= have, "the board stores no more")
            if kind:
                self._armed = True  # what it writes then is which readings have been delivered
            else:
                self.board.cut_power(self._rng.randint(1, 6), self._rng)
        await self._wait(lambda: self.board.cut, "the board has not written to its flash")
        self.cuts += 1
        self.online = False
        moment = ("as it stores readings", "when a batch has arrived", "again, as it starts")[kind]
        self._event("cut", f"POWER CUT {moment}")
        self._event("plain", f"{self.board.cut}; only on that flash: {_readings(self.waiting)}")

    async def _restart(self):
        await self.board.power_off()
        told, arrived = len(self.told), self.arrived
        self.found = None
        await self.board.power_on()
        await self._wait(lambda: self.found is not None, "the program has not started again")
        self._event("good", f"power back, and waiting on the flash: {_readings(self.found)}")
        await self._wait(lambda: len(self.told) > told, "the board stores no more")
        await self._wait(lambda: self.arrived > arrived, "nothing arrives any more")
        text = f"{_readings(self.arrived - arrived)} arrived"
        if self.receiver.duplicates > self._again:
            self._again = self.receiver.duplicates
            text += "; a batch came again, and the server recognised it"
        self._event("good", text)

    async def _connect(self):
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    def _on_request(self, request):
        """In a thread of the server: a batch is read and stored, and not answered yet."""
        if self._armed and request.receipt == "applied":
            self._armed = False
            self._loop.call_soon_threadsafe(self.board.cut_power, 1, self._rng)

    def _on_output(self, line):
        if not self._running:
            return  # deploy.py talks to it, and tells what is worth knowing
        self._say(line)
        stored = re.fullmatch(r"stored (\d+), \d+ waiting", line)
        found = re.fullmatch(r"\S+: (\d+) readings wait on flash", line)
        if stored:
            self.told.append(int(stored[1]))
        elif found:
            self.found = int(found[1])
        elif line.startswith("Wi-Fi:"):
            self.online = "connected" in line
        elif line.startswith("Traceback"):
            self._wrong.append("the program on the board met an exception, see its output")

    def _say(self, line):
        self.said.append(line)
        self._screen.say(self, line)

    # The clock

    async def _wait(self, condition, otherwise, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while not condition():
            self.board.check()
            if time.monotonic() > deadline:
                last = " | ".join(list(self.said)[-5:])
                raise StoryError(f"{otherwise} for {patience} s. The last that was said: {last}")
            self.board.warm(26 + self._rng.random())
            self._screen.tick(self)
            await asyncio.sleep(TICK)


def _readings(count):
    return f"{count} reading{'' if count == 1 else 's'}"


# -- the screen -----------------------------------------------------------------------------------


def describe(number, reading):
    """Return a reading as text."""
    moment = reading.get("ts")
    clock = time.strftime("%H:%M:%S", time.localtime(moment)) if moment else "no clock"
    return f"#{number:<5} {clock:<9} {reading.get('celsius')} °C"


class Plain(screens.PlainScreen):
    """Lines for a log file, with all that deploy.py and the board say."""

    EVERY = 10  # s

    def say(self, story, line):
        """Print what deploy.py or the board has said."""
        print("%6.1f s  | %s" % (story.elapsed, line), flush=True)

    def status(self, story):
        """Return how things are, in a line."""
        return "stored %4d   on flash only %4d   arrived %4d" % (
            len(story.told),
            story.waiting,
            story.arrived,
        )


class Live(screens.LiveScreen):
    """A panel with the last lines of all that is said."""

    EVERY = 0.2  # s: each frame is time that the emulator has not
    SUBTITLE = "once it says stored, a reading survives the power cut"

    def say(self, story, line):
        """Nothing: the next frame shows it."""

    def title(self, story):
        """Return what the panel is headed with, in rich's markup."""
        return f"[bold]postcache[/bold] on an emulated Pico W, {story.elapsed:.0f} s"

    def parts(self, story, width, rows):
        """Return the panel's lines, Texts, for so many columns and rows beside the frame."""
        from rich.text import Text

        rows = min(rows - 7, 30)
        readings = 3 if rows > 14 else 1
        said = (rows - readings) // 2
        blank = Text("")
        return [
            self._state(story),
            blank,
            *screens.events(story, rows - readings - said),
            blank,
            Text("what the board says" if story.told else "what deploy.py says", "bold"),
            *screens.lines(story.said, said),
            blank,
            Text("the last to arrive", "bold"),
            *screens.lines([describe(*one[1:]) for one in self._last(story, readings)], readings),
        ]

    @staticmethod
    def _last(story, count):
        return [one for one in story.receiver.records[-count:] if isinstance(one[2], dict)]

    def _state(self, story):
        from rich.text import Text

        on = story.board.powered
        return Text.assemble(
            *("stored ", (f"{len(story.told):<5}", "bold cyan")),
            *("on flash only ", (f"{story.waiting:<5}", "bold yellow")),
            *("arrived ", (f"{story.arrived:<5}", "bold green")),
            *("power ", ("● on   " if on else "○ OFF  ", "green" if on else "bold red")),
            *("Wi-Fi ", ("● " if story.online else "○ ", "green" if story.online else "")),
            *(" writes ", (f"{story.board.written}", "bold")),
        )


# -- the command line -----------------------------------------------------------------------------


def _parser():
    parser = argparse.ArgumentParser(
        prog="sim.py",
        description="Run postcache on an emulated Pico W and cut its power amid flash writes.",
    )
    add = parser.add_argument
    add("--firmware", metavar="FILE.uf2", help="MicroPython for the Pico W; else it is downloaded")
    add("--version", default=VERSION, help="which MicroPython to download [%(default)s]")
    add("--cuts", type=int, default=3, help="how often the power is cut, 0 to 100 [%(default)s]")
    add("--seed", type=int, help="for where it is cut; printed when something went wrong")
    add("--keep", action="store_true", help="keep the folder with the flash image")
    return parser


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.cuts <= 100:
        parser.error("--cuts must be 0 to 100")
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    screen = screens.make_screen(Plain, Live)

    def find():
        try:
            import rp2040py  # noqa: F401
        except ImportError:
            raise NoFirmware(
                "the emulator is missing: pip install rp2040py, on CPython 3.10 or later."
            ) from None
        return find_firmware(options.firmware, options.version)

    def tell(firmware, folder):
        sim = Sim(firmware, folder, options.cuts, seed, screen)
        try:
            verdict = asyncio.run(sim.run())
        finally:
            pathlib.Path(folder, "flash.bin").write_bytes(sim.board.flash)
        lines = report(verdict, sim.cuts)
        if not passed(verdict):
            lines.insert(0, f"the cuts were drawn with --seed {seed}")
        return verdict, lines

    return stories.play("sim", screen, find, tell, options.keep)


if __name__ == "__main__":
    sys.exit(main())
