"""
A MicroPython board without hardware: its WebAssembly port behind a loopback socket.

    with Board() as board:
        subprocess.run(["mpremote", "connect", board.port, "exec", "print(1)"])
        board.unplug()
        board.plug()

The real mpremote, or anything on pyserial, opens `board.port` as it opens a serial port. The REPL
with its raw-paste mode, boot.py and main.py, soft and hard resets, Ctrl-C in a loop and a flash of
limited size are as on a board. What differs, all of it the port's:

* Ctrl-C is seen when the program sleeps, prints or uses a file; `while True: pass` is deaf. The
  exception comes at the next jump: behind a `try` whose last statement was the sleep.
* asyncio.run() returns at once: the port's asyncio runs while the prompt waits.
* There is no garbage collection while main.py runs: a long run takes memory, without harm.
* `sys.platform` is "webassembly", and what a board's firmware has more is in wasm_rom/.

`python host_tests/machines/wasm_board.py` runs one for people, until Ctrl-C.
"""

import argparse
import contextlib
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))

import get_runtimes  # noqa: E402

VERSION = "1.25.0"
_ENDLESS = 0x7FFFFFFF
_STALLED = 10  # s that a client may leave what the board prints unread
_PATIENCE = 30  # s for our own thread to see that a client is gone


def need(*versions):
    """Skip the test, or fail it where all is wanted, unless Node and these releases are there."""
    import pytest

    wanted = bool(os.environ.get("CI") or os.environ.get("POSTCACHE_REQUIRE_ALL"))
    try:
        get_runtimes.find("node", not wanted)
        for version in versions or [VERSION]:
            get_runtimes.find("webassembly-" + version, not wanted)
    except get_runtimes.Unavailable as error:
        (pytest.fail if wanted else pytest.skip)(str(error))


class Board:
    """
    A board on a port of its own; as a context manager it is powered up, and ends.

    Args:
        version: str, the release of MicroPython: one that tools/get_runtimes.py knows.
        port: int, the TCP port on 127.0.0.1; 0 takes a free one.
        flash: bytes that the flash has, in blocks of 4096, of which a directory takes two; None
            for one that never gets full and costs no time to count.
        rom: a folder of modules that the firmware has built in, /rom on the board.
        ram: whether there is a file system in RAM, /ram, which is quicker and endless.
        offline: never fetch the runtime.

    Attributes: `number`, the TCP port on 127.0.0.1, whatever is connected.

    Raises get_runtimes.Unavailable when Node or the port is missing.
    """

    def __init__(
        self,
        version=VERSION,
        port=0,
        flash=2 << 20,
        rom=HERE / "wasm_rom",
        ram=False,
        offline=False,
    ):
        self._node = get_runtimes.find("node", offline)[0]
        self._module = get_runtimes.find("webassembly-" + version, offline)[0]
        self._rom = str(rom)
        self._ram = ["ram"] if ram else []
        self._size = _ENDLESS if flash is None else flash
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="board-"))
        self._changed = threading.Condition(threading.RLock())
        self._printed = b""
        self._process = self._line = None
        self._client = None
        self._listener = None
        self._threads = []
        # Bound and never listening: while the board is unplugged, the port stays ours.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", port))
        self.number = self._holder.getsockname()[1]

    @property
    def port(self):
        """The name of the port, for mpremote and pyserial; the same for as long as this lives."""
        with self._changed:
            # Who asks wants to open it: see first that a client that is gone no longer has it.
            client = self._client
            if client and select.select([client], [], [], 0)[0]:
                with contextlib.suppress(OSError):
                    if not client.recv(1, socket.MSG_PEEK):
                        self._changed.wait_for(lambda: self._client is not client, _PATIENCE)
        return "socket://127.0.0.1:%d" % self.number

    @property
    def address(self):
        """The same as (host, port), for a socket."""
        return "127.0.0.1", int(self.port.rpartition(":")[2])

    @property
    def process(self):
        """The Popen that is the board while it has power, else None."""
        return self._process

    @property
    def plugged(self):
        """Whether the board has power."""
        return self._process is not None

    @property
    def output(self):
        """All text that the board has printed since it was powered up, "\\r\\n" as "\\n"."""
        with self._changed:
            return self._printed.decode(errors="replace").replace("\r\n", "\n")

    def __enter__(self):
        self.plug()
        return self

    def __exit__(self, *args):
        self.close()

    def close(self):
        """End for good; the flash is gone."""
        self.unplug()
        self._holder.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- power ------------------------------------------------------------------------------------

    def plug(self):
        """Power up: boot.py, main.py, the prompt. Returns when the port can be opened."""
        with self._changed:
            if self._process:
                raise ValueError("it is plugged in")
            self._printed = b""
            self._start()
            self._listen()

    def unplug(self):
        """Cut the power, whatever is going on; the flash keeps what it holds at this instant."""
        with self._changed:
            process, self._process = self._process, None
            if process:
                self._leave(process)
            threads, self._threads = self._threads, []
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def cut_after(self, n):
        """
        Cut the power when `n` bytes more have come from the host and the board has acted on them.

        What the board does with the last of them is done in full: see cut_after_writes().
        """
        self._control(b"C", n)

    def cut_after_writes(self, n):
        """
        Cut the power amid the `n`-th operation on the flash from now; 0 takes it back.

        Of a write half the bytes arrive; what is made, renamed or removed stays as it was.
        """
        self._control(b"W", n)

    def wait_until_unplugged(self, timeout=60):
        """Wait for the power to be cut; returns False if it was not within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._process, timeout)

    def wait_for(self, text, timeout=60):
        """
        Wait until `output` contains `text`.

        Returns False if that was not within `timeout` seconds, or before the power was cut.
        """
        with self._changed:
            self._changed.wait_for(lambda: text in self.output or not self._process, timeout)
            return text in self.output

    def wait_until_closed(self, timeout=60):
        """Wait until no client is connected; returns False if not within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._client, timeout)

    # -- flash ------------------------------------------------------------------------------------

    def files(self):
        """Return {"/path": bytes} of all files on the flash."""
        return {
            "/" + path.relative_to(self._folder).as_posix(): path.read_bytes()
            for path in sorted(self._folder.rglob("*"))
            if path.is_file()
        }

    def folders(self):
        """Return ["/path", ...] of all directories on the flash, sorted."""
        return [
            "/" + path.relative_to(self._folder).as_posix()
            for path in sorted(self._folder.rglob("*"))
            if path.is_dir()
        ]

    def write(self, path, data):
        """Write file `path`, "/..."; its directories are made. `data`: bytes or str."""
        full = self._folder / path.lstrip("/")
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data.encode() if isinstance(data, str) else data)

    def remove(self, path):
        """Remove the file or directory `path`, if there is one."""
        full = self._folder / path.lstrip("/")
        if full.is_dir():
            shutil.rmtree(full)
        else:
            full.unlink(missing_ok=True)

    def free(self, n):
        """Resize the flash so that `n` bytes are free, rounded down to blocks of 4096."""
        used = 2 + sum(
            2 if path.is_dir() else -(-path.stat().st_size // 4096)
            for path in self._folder.rglob("*")
        )
        self._size = used * 4096 + n
        if self._process:
            self._control(b"F", self._size)

    # -- the process ------------------------------------------------------------------------------

    def _start(self):
        ours, theirs = socket.socketpair()
        line = str(theirs.fileno())
        command = [self._node, "--no-warnings", str(HERE / "wasm_board.mjs"), self._module]
        self._process = process = subprocess.Popen(
            [*command, str(self._folder), self._rom, line, *self._ram],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._line = ours
        self._send(ours, b"F", struct.pack("<i", self._size))
        self._thread(self._read, process, ours)

    def _thread(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _control(self, kind, n):
        with self._changed:
            if not self._process:
                raise ValueError("it is not plugged in")
            self._send(self._line, kind, struct.pack("<i", n))

    def _send(self, line, kind, data):
        with contextlib.suppress(OSError):  # without power: whoever reads the other way will see
            line.sendall(kind + struct.pack("<I", len(data)) + data)

    def _read(self, process, line):
        while True:
            try:
                data = line.recv(65536)
            except OSError:
                data = b""  # killed before it had read everything
            if not data:
                break
            with self._changed:
                self._printed += data
                self._changed.notify_all()
                client = self._client
            try:
                if client:
                    client.sendall(data)
            except OSError:
                self._drop(client)
        line.close()
        ended = process.wait()
        with self._changed:
            if self._process is not process:
                return  # unplug() does the rest
            if ended == -signal.SIGHUP:  # a hard reset
                self._start()
                return
            self._process = None
            self._hang_up()
            self._changed.notify_all()
        if ended != -signal.SIGKILL:
            print("wasm_board: the interpreter ended with %d" % ended, file=sys.stderr)

    def _leave(self, process):
        process.kill()
        process.wait()
        self._hang_up()
        self._changed.notify_all()

    # -- the port ---------------------------------------------------------------------------------

    def _listen(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.number))
        listener.listen(0)  # none waits behind the first one
        self._listener = listener
        self._thread(self._serve, listener)

    def _serve(self, listener):
        try:
            client, _ = listener.accept()
        except OSError:
            return
        listener.close()  # a port has one user: others are refused until it is closed
        with self._changed:
            if self._listener is not listener:
                client.close()
                return
            self._listener = None
            self._client = client
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.settimeout(_STALLED)
        while True:
            try:
                data = client.recv(4096)
            except socket.timeout:
                continue
            except OSError:
                break
            if not data:
                break
            self._send(self._line, b"D", data)
        self._drop(client)

    def _drop(self, client):
        with self._changed:
            client.close()
            if self._client is client:
                self._client = None
                self._changed.notify_all()
                if self._process:
                    self._listen()

    def _hang_up(self):
        for name in ("_client", "_listener"):
            sock = getattr(self, name)
            setattr(self, name, None)
            if sock:
                try:
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
                except OSError:
                    pass
                sock.close()


def main():
    """Run a board until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A MicroPython board without hardware.")
    parser.add_argument("--version", default=VERSION, help="MicroPython's; default %(default)s")
    parser.add_argument("--port", type=int, default=0, help="TCP port; default: a free one")
    options = parser.parse_args()
    try:
        with Board(options.version, options.port) as board:
            print("MicroPython %s on %s, until Ctrl-C" % (options.version, board.port), flush=True)
            while board.wait_until_unplugged(3600) is False:
                pass
    except KeyboardInterrupt:
        pass
    except (get_runtimes.Unavailable, OSError) as error:
        sys.exit("wasm_board: %s" % error)


if __name__ == "__main__":
    main()
