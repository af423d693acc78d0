"""
`make sim`: what it does to flash, network and USB of the emulated board, and what it says.

With the firmware of a Pico W at hand (POSTCACHE_FIRMWARE or FIRMWARE names a UF2 file) the whole
story runs, power cuts included. There is no firmware in CI, so this is the one test that may be
skipped there; all others run on the emulator's own parts.
"""

import asyncio
import importlib
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import time

import pytest
from fake_server import FakeServer

ROOT = pathlib.Path(__file__).parents[2]
SIM = ROOT / "tools" / "sim.py"
FIRMWARE = os.environ.get("POSTCACHE_FIRMWARE") or os.environ.get("FIRMWARE")

emulator = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="rp2040py, the emulator, needs Python 3.10"
)


@pytest.fixture(scope="module")
def sim():
    """The module tools/sim.py."""
    sys.path.insert(0, str(SIM.parent))  # for its neighbours
    return importlib.import_module("sim")


def run(*arguments, timeout=60):
    return subprocess.run(
        [sys.executable, str(SIM), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


# -- what it says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [["--cuts", "-1"], ["--cuts", "101"], ["--cuts", "x"], ["more"]])
def test_a_wrong_command_line_is_2(wrong):
    done = run(*wrong)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def sentence(done):
    """The one sentence that a run without firmware ends with."""
    assert (done.returncode, done.stdout) == (2, ""), done
    assert re.fullmatch(r"sim: [^\n]+\.\n", done.stderr), done.stderr
    return done.stderr


@emulator
def test_a_firmware_that_is_not_there_is_one_sentence(tmp_path):
    assert "no.uf2 cannot be read" in sentence(run("--firmware", tmp_path / "no.uf2"))


def uf2(image, base=0x10000000, family=0xE48BFF56, block=256):
    count = len(image) // block
    return b"".join(
        struct.pack(
            "<8I", 0x0A324655, 0x9E5D5157, 0x2000, base + i * block, block, i, count, family
        )
        + image[i * block : (i + 1) * block].ljust(476, b"\0")
        + struct.pack("<I", 0x0AB16F30)
        for i in range(count)
    )


NAME = b"Raspberry Pi Pico W with RP2040"
IMAGE = (NAME + bytes(range(256)) * 4)[:1024]


def test_a_whole_uf2_file_is_read(sim, tmp_path):
    path = tmp_path / "a.uf2"
    path.write_bytes(uf2(IMAGE))
    assert sim.read_uf2(path) == IMAGE
    path.write_bytes(uf2(IMAGE, base=0x10000100))
    assert sim.read_uf2(path) == b"\xff" * 256 + IMAGE


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no UF2 file"),
        (b"<html>" * 512, "no UF2 file"),
        (uf2(IMAGE) + b"x", "no UF2 file"),
        (uf2(IMAGE)[:-512], "not whole"),
        (uf2(IMAGE)[512:], "not whole"),
        (uf2(IMAGE)[:512] + uf2(IMAGE)[1024:], "not whole"),
        (uf2(IMAGE)[512:1024] + uf2(IMAGE)[:512] + uf2(IMAGE)[1024:], "not whole"),
        (uf2(IMAGE, family=0xE48BFF59), "another chip"),
        (uf2(IMAGE, base=0x10200000), "does not fit"),
        (uf2(IMAGE, base=0x20000000), "does not fit"),
        (uf2(IMAGE.replace(b"Pico W", b"Pico 2")), "for the Pico W"),
    ],
)
def test_what_is_no_firmware_for_a_pico_w_is_refused(sim, tmp_path, data, says):
    path = tmp_path / "a.uf2"
    path.write_bytes(data)
    with pytest.raises(sim.NoFirmware, match=says):
        sim.read_uf2(path)


@emulator
@pytest.mark.parametrize("answer", [None, OSError("no route"), "broken"])
def test_a_download_that_fails_says_what_is_needed(sim, tmp_path, monkeypatch, capsys, answer):
    import rp2040py.utils.firmware_retrieve as retrieving

    path = tmp_path / "a.uf2"
    path.write_bytes(b"half of it")

    def retrieve(spec, image, board):
        assert (image, board) == ("1.24.1", "pico_w")
        if isinstance(answer, OSError):
            raise answer
        return answer and path

    monkeypatch.setattr(retrieving, "retrieve", retrieve)
    assert sim.main(["--version", "1.24.1"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"sim: [^\n]+\.\n", said.err)
    if answer == "broken":
        assert "no UF2 file" in said.err
        assert not path.exists()  # or each run would find it again
    else:
        assert "1.24.1" in said.err
        assert "--firmware FILE.uf2" in said.err


# -- the flash ------------------------------------------------------------------------------------


def test_a_page_that_was_cut_short_is_old_new_and_one_byte_between(sim):
    seen = set()
    odd = 0
    for seed in range(300):
        rng = random.Random(seed)
        before = bytearray(rng.randbytes(1024))
        data = rng.randbytes(256)
        flash = bytearray(before)
        text = sim.interrupt(flash, bytes([2, 0, 2, 0]) + data, rng)
        done = int(re.fullmatch(r"page at 0x200 programmed up to byte (\d+) of 256", text)[1])
        seen.add(done)
        whole = bytes(a & b for a, b in zip(before[512:], data))
        assert flash[:512] == before[:512]
        assert flash[512 : 512 + done] == whole[:done]
        between = flash[512 + done]
        assert between | before[512 + done] == before[512 + done]  # nothing rises
        assert between & whole[done] == whole[done]  # and nothing falls that should stay
        assert flash[513 + done :] == before[513 + done :]
        odd += between not in (before[512 + done], whole[done])
    assert odd > 100
    assert min(seen) < 20
    assert max(seen) > 235


def test_a_page_is_cut_short_where_that_matters(sim):
    for seed in range(50):
        flash = bytearray(b"\xff" * 256)
        text = sim.interrupt(flash, b"\x02\0\0\0" + bytes(4) + b"\xff" * 252, random.Random(seed))
        assert int(re.search(r"byte (\d+) of 256", text)[1]) < 4
        assert flash[4:] == b"\xff" * 252
    # Nothing to program at all is no failure.
    assert "byte 0 of 256" in sim.interrupt(flash, b"\x02\0\0\0" + b"\xff" * 256, random.Random(1))


def test_a_sector_that_was_half_erased_has_only_risen(sim):
    shares = set()
    for seed in range(40):
        rng = random.Random(seed)
        before = bytearray(rng.randbytes(3 * 4096))
        flash = bytearray(before)
        text = sim.interrupt(flash, b"\x20\x00\x12\x34", rng)
        assert text == "sector at 0x1000 half erased"
        assert len(flash) == len(before)
        assert flash[:4096] == before[:4096]
        assert flash[8192:] == before[8192:]
        old, new = (int.from_bytes(part[4096:8192], "big") for part in (before, flash))
        assert new & old == old
        left = (~new & (1 << 32768) - 1).bit_count()
        assert 0 < left < (~old & (1 << 32768) - 1).bit_count()
        shares.add(round(left / 4096))
    assert len(shares) > 1


def test_what_changes_nothing_is_not_interrupted(sim):
    flash = bytearray(4096)
    assert sim.interrupt(flash, b"\x03\x00\x00\x00\xff", random.Random(1)) is None
    assert flash == bytes(4096)


class Chip:
    """A Pico W without firmware, whose flash is spoken to as the boot ROM does."""

    def __init__(self):
        from rp2040py.boards import build_rp2040
        from rp2040py.gpio_pin import GPIOPinState

        self.mcu = build_rp2040("pico_w")
        self.ssi = self.mcu.ssi
        self.ssi.write_uint32(8, 1)  # SSIENR
        self._states = GPIOPinState.LOW, GPIOPinState.HIGH
        self.mcu.flash[:8192] = bytes(8192)

    def command(self, *data):
        low, high = self._states
        self.ssi._on_cs_pin_changed(high, low)
        self.ssi._on_cs_pin_changed(low, high)
        answer = []
        for byte in data:
            self.ssi.write_uint32(0x60, byte)
            answer.append(self.ssi.read_uint32(0x60))
        self.ssi._on_cs_pin_changed(high, low)
        return answer

    def program(self, at, data):
        self.command(6)
        self.command(2, 0, at >> 8, at & 255, *data)

    def erase(self, at):
        self.command(6)
        self.command(0x20, 0, at >> 8, at & 255)

    def read(self, at):
        return self.command(3, 0, at >> 8, at & 255, 0)[-1]


@emulator
def test_the_power_goes_within_the_command_that_was_named(sim):
    chip = Chip()
    cuts = []
    power = sim.Power(chip.ssi, chip.mcu.flash, cuts.append)
    chip.erase(0)
    chip.program(0, b"\x11" * 256)
    assert power.commands == 2
    power.cut(2, random.Random(3))
    chip.command(2, 0, 1, 0, 0)  # without a write enable before it a chip ignores it
    chip.program(256, b"\x22" * 256)
    assert not cuts
    assert chip.mcu.flash[:512] == b"\x11" * 256 + b"\x22" * 256
    chip.program(512, b"\x33" * 256)
    (text,) = cuts
    done = int(re.search(r"byte (\d+) of 256", text)[1])
    assert 0 < done < 256
    assert chip.mcu.flash[512 : 512 + done] == b"\x33" * done
    assert chip.mcu.flash[513 + done : 4096] == b"\xff" * (4096 - 513 - done)


@emulator
def test_nothing_is_written_once_the_power_is_gone(sim):
    chip = Chip()
    cuts = []
    power = sim.Power(chip.ssi, chip.mcu.flash, cuts.append)
    chip.erase(0)
    power.cut(1, random.Random(1))
    chip.erase(0x1000)
    assert cuts == ["sector at 0x1000 half erased"]
    left = bytes(chip.mcu.flash)
    chip.program(0, bytes(256))
    chip.erase(0x1000)
    assert bytes(chip.mcu.flash) == left
    assert len(cuts) == 1
    assert power.commands == 2


@emulator
def test_without_a_cut_the_flash_is_what_it_is_without_us(sim):
    flashes = []
    for hooked in (False, True):
        chip = Chip()
        if hooked:
            sim.Power(chip.ssi, chip.mcu.flash, pytest.fail)
        chip.erase(0)
        chip.program(0, range(256))
        chip.program(0, b"\xf0" * 256)
        assert chip.read(0x17) == 0x10
        flashes.append(bytes(chip.mcu.flash))
    assert flashes[0] == flashes[1]


# -- the network ----------------------------------------------------------------------------------

GUEST = b"\x02\x00\x00\x00\x00\x02"


class Network:
    """What the board's Wi-Fi leads to, and the frames that come back from it."""

    def __init__(self, sim, connect):
        from rp2040py.boards import build_rp2040
        from rp2040py.external.cyw43 import nat, net
        from rp2040py.simulator import Simulator

        self.net, self.nat = net, nat
        mcu = build_rp2040("pico_w")
        Simulator(rp2040=mcu).bind_loop()
        self.frames = asyncio.Queue()
        self.bridge = sim.make_network(mcu, self.frames.put_nowait, connect)

    def _send(self, host, proto, packet):
        frame = self.net.pack_ipv4(self.nat.GUEST_IP, host, proto, packet)
        self.bridge.handle_outbound_ethernet_frame(
            self.net.pack_ethernet(self.nat.GATEWAY_MAC, GUEST, self.net.ETHERTYPE_IPV4, frame)
        )

    def connect(self, host, port):
        host = bytes(map(int, host.split(".")))
        packet = self.net.pack_tcp(
            *(self.nat.GUEST_IP, host, 50000, port),
            seq=7,
            ack=0,
            flags=self.net.TCP_SYN,
            window=8192,
            payload=b"",
            mss=1460,
        )
        self._send(host, self.net.IP_PROTO_TCP, packet)

    def datagram(self, host, port, data):
        host = bytes(map(int, host.split(".")))
        packet = self.net.pack_udp(self.nat.GUEST_IP, host, 50001, port, data)
        self._send(host, self.net.IP_PROTO_UDP, packet)

    async def answer(self):
        frame = await asyncio.wait_for(self.frames.get(), 30)
        ip = self.net.parse_ipv4(self.net.parse_ethernet(frame).payload)
        tcp = ip.proto == self.net.IP_PROTO_TCP
        return ip, (self.net.parse_tcp if tcp else self.net.parse_udp)(ip.payload)


@emulator
def test_the_servers_address_leads_to_our_loopback_and_no_other_leads_anywhere(sim):
    async def story(port):
        calls = []

        async def connect():
            calls.append(1)
            return await asyncio.open_connection("127.0.0.1", port)

        network = Network(sim, connect)
        net = network.net
        for host, number in (("8.8.8.8", 8080), ("192.168.7.7", 80), ("127.0.0.1", port)):
            network.connect(host, number)
            _, tcp = await network.answer()
            assert tcp.flags & net.TCP_RST, (host, number)
        assert not calls
        network.connect("192.168.7.7", 8080)
        ip, tcp = await network.answer()
        assert tcp.flags == net.TCP_SYN | net.TCP_ACK
        assert (ip.src_ip, tcp.src_port, tcp.dst_port) == (b"\xc0\xa8\x07\x07", 8080, 50000)
        assert calls == [1]
        network.bridge.reset()

    with FakeServer() as server:
        asyncio.run(story(server.port))


@emulator
def test_ntp_is_answered_and_other_datagrams_are_lost(sim, monkeypatch):
    async def story():
        loop = asyncio.get_running_loop()

        async def refused(*args, **kwargs):
            pytest.fail("a datagram would have left this machine")

        monkeypatch.setattr(loop, "create_datagram_endpoint", refused)
        network = Network(sim, None)
        network.datagram("10.0.0.1", 53, b"a question")
        network.datagram("8.8.8.8", 123, b"\x1b" + bytes(47))
        network.datagram("192.168.7.7", 124, b"x")
        network.datagram("192.168.7.7", 123, b"\x1b" + bytes(47))
        before = int(time.time())
        _, udp = await network.answer()
        assert (udp.src_port, udp.dst_port, len(udp.payload)) == (123, 50001, 48)
        assert udp.payload[0] & 7 == 4  # from a server
        (seconds,) = struct.unpack(">I", udp.payload[40:44])
        assert before <= seconds - 2208988800 + 1 <= time.time() + 1
        for _ in range(10):
            await asyncio.sleep(0)
        assert network.frames.empty()

    asyncio.run(story())


# -- the USB port ---------------------------------------------------------------------------------


class Usb:
    """What UsbPort needs of the emulator's USB console."""

    def __init__(self):
        self.usb = self
        self.on_endpoint_read = lambda endpoint, size: self.others.append((endpoint, size))
        self.on_reset = lambda: self.resets.append(1)
        self.others = []
        self.resets = []
        self.taken = asyncio.Queue()

    def endpoint_read_done(self, endpoint, data):
        assert endpoint == 2
        self.taken.put_nowait(data)


async def opened(port):
    end = time.monotonic() + 30
    while not port.ready:
        assert time.monotonic() < end
        await asyncio.sleep(0)


async def ended(reader):
    """Whether a connection ends, one way or the other, with nothing more to read."""
    try:
        return not await asyncio.wait_for(reader.read(1), 30)
    except ConnectionResetError:
        return True


def test_the_usb_port_is_there_while_the_board_is_on_usb(sim):
    async def story():
        usb = Usb()
        printed = []
        port = sim.UsbPort(usb, 0, printed.append)
        usb.on_device_connected()
        await opened(port)
        number = port.number
        reader, writer = await asyncio.open_connection("127.0.0.1", number)

        # To the board: only when it asks, and no more than it asks for.
        usb.on_endpoint_read(0, 64)
        assert usb.others == [(0, 64)]
        usb.on_endpoint_read(2, 4)
        writer.write(b"abcdef")
        assert await asyncio.wait_for(usb.taken.get(), 30) == b"abcd"
        assert usb.taken.empty()
        usb.on_endpoint_read(2, 64)
        assert await asyncio.wait_for(usb.taken.get(), 30) == b"ef"
        usb.on_endpoint_read(2, 64)
        writer.write(b"gh")
        assert await asyncio.wait_for(usb.taken.get(), 30) == b"gh"

        # From the board, also when nobody listens.
        usb.on_serial_data(bytearray(b"hello"))
        assert await asyncio.wait_for(reader.readexactly(5), 30) == b"hello"

        # As a serial port, it is busy for a second client.
        other, second = await asyncio.open_connection("127.0.0.1", number)
        assert await ended(other)
        second.close()

        # A reset takes the port away until the board is back.
        usb.on_reset()
        assert usb.resets == [1]
        assert await ended(reader)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", number)
        usb.on_serial_data(b"unheard")
        usb.on_device_connected()
        await opened(port)
        assert port.number == number
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"x")
        usb.on_endpoint_read(2, 64)
        assert await asyncio.wait_for(usb.taken.get(), 30) == b"x"
        assert printed == [b"hello", b"unheard"]
        port.close()
        assert await ended(reader)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", number)

    asyncio.run(story())


# -- the verdict ----------------------------------------------------------------------------------


def arrived(*numbers, stream="a"):
    return [(stream, number, {"celsius": 20.5}) for number in numbers]


def test_compare_passes_what_is_whole(sim):
    verdict = sim.compare([1, 2, 3], arrived(1, 2, 3))
    assert sim.stories.passed(verdict)
    assert sim.report(verdict, 3) == [
        "delivered 3 of 3 readings over 3 power cuts, 0 lost, 0 duplicated"
    ]


def test_compare_allows_one_untold_reading_for_each_cut(sim):
    assert sim.stories.passed(sim.compare([1, 3], arrived(1, 2, 3), cuts=1))
    assert not sim.stories.passed(sim.compare([1, 3], arrived(1, 2, 3)))
    assert not sim.stories.passed(sim.compare([1, 4], arrived(1, 2, 3, 4), cuts=1))
    assert "1 reading more arrived" in sim.report(sim.compare([1], arrived(1, 2), 1), 1)[0]


@pytest.mark.parametrize(
    ("told", "records", "wrong"),
    [
        ([1, 2, 3], arrived(1, 3), "lost 2"),
        ([1, 2], [], "lost 1, 2"),
        ([1, 2], arrived(1, 2, 2), "duplicated 2"),
        ([1, 2], arrived(1, 2) + arrived(1, stream="b"), "2 streams arrived: a, b"),
        ([1, 2, 3], arrived(1, 3, 2), "2 arrived after 3"),
        ([1, 2, 2], arrived(1, 2), "the board stored 2 after 2"),
        ([1, 2], arrived(1) + [("a", 2, {"celsius": "warm"})], "what arrived as 2 is no reading"),
        ([1], [("a", 1, None)], "what arrived as 1 is no reading"),
    ],
)
def test_compare_sees_what_must_not_be(sim, told, records, wrong):
    verdict = sim.compare(told, records, cuts=1)
    assert not sim.stories.passed(verdict)
    assert any(line.startswith("WRONG: " + wrong) for line in sim.report(verdict, 1))


def test_no_reading_at_all_is_no_success(sim):
    assert not sim.stories.passed(sim.compare([], []))


# -- all of it ------------------------------------------------------------------------------------


@emulator
@pytest.mark.skipif(
    not FIRMWARE, reason="set POSTCACHE_FIRMWARE to a UF2 file of MicroPython for the Pico W"
)
def test_nothing_is_lost_on_real_firmware_whose_power_is_cut():
    done = run("--firmware", FIRMWARE, "--cuts", 2, timeout=1800)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    told = re.fullmatch(
        r"delivered (\d+) of (\d+) readings over 2 power cuts, 0 lost, 0 duplicated", last
    )
    assert told, last
    assert told[1] == told[2]
    assert len(re.findall("POWER CUT", done.stdout)) == 2
