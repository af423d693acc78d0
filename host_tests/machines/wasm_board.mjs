// The board of wasm_board.py: MicroPython's WebAssembly port with a serial line, a flash and power.
//
//     node wasm_board.mjs MICROPYTHON.MJS FLASH ROM LINE [ram]
//
// FLASH is the folder that is the board's file system. ROM holds modules that a board has built in,
// which the port lacks (machine, socket); the board sees them under /rom. With
// "ram" there is a file system in RAM, /ram. The serial LINE is
// the file descriptor of a socket (not 0 or 1, which Node makes non-blocking). What comes in by it
// is framed: a frame is a kind, a length (4 bytes, little-endian) and so many bytes.
//
//     D  bytes from the host               W  cut the power in the N-th flash operation from now
//     C  cut the power N bytes from now    F  the flash has N bytes
//
// A life of the interpreter ends in a soft reset (the next one starts in this process), a hard
// reset (SIGHUP) or a power cut (SIGKILL). A thread reads LINE, for the interpreter blocks: it is
// interrupted where it calls out (to sleep, print, use a file), and a loop that does none of that
// is deaf.

import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

// The shared memory: counters, then a ring of bytes.
const HEAD = 0; // bytes that have come
const TAIL = 1; // bytes that were taken
const CUT = 2; // the power goes when so many bytes were taken
const OPERATIONS = 3; // ... or in the flash operation that counts this down to 0
const SIZE = 4; // bytes of the flash
const COUNTERS = 8;
const RING = 1 << 16;
const NEVER = 0x7fffffff;

function die(signal) {
    process.kill(process.pid, signal);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

// -- the thread that reads LINE -------------------------------------------------------------------

function readSerial({ shared, line }) {
    const counters = new Int32Array(shared, 0, COUNTERS);
    const ring = new Uint8Array(shared, 4 * COUNTERS);
    const read = (n) => {
        const data = Buffer.alloc(n);
        for (let at = 0; at < n; ) {
            let got = 0;
            try {
                got = fs.readSync(line, data, at, n - at);
            } catch {
                // ECONNRESET: it had not read all that was printed.
            }
            if (!got) die("SIGKILL"); // whoever started this is gone
            at += got;
        }
        return data;
    };
    parentPort.postMessage("up");
    for (;;) {
        const header = read(5);
        const data = read(header.readUInt32LE(1));
        const kind = String.fromCharCode(header[0]);
        if (kind === "D") {
            for (const byte of data) {
                const head = counters[HEAD];
                for (;;) {
                    const tail = Atomics.load(counters, TAIL);
                    if (head - tail < RING) break;
                    Atomics.wait(counters, TAIL, tail);
                }
                ring[head % RING] = byte;
                Atomics.store(counters, HEAD, head + 1);
            }
        } else {
            const n = data.readInt32LE(0);
            if (kind === "C") Atomics.store(counters, CUT, n < 0 ? NEVER : counters[HEAD] + n);
            if (kind === "W") Atomics.store(counters, OPERATIONS, n);
            if (kind === "F") Atomics.store(counters, SIZE, n);
        }
        Atomics.notify(counters, HEAD);
    }
}

// -- the serial line ------------------------------------------------------------------------------

const CTRL_A = 1;
const CTRL_B = 2;
const CTRL_C = 3;
const CTRL_D = 4;
const CTRL_E = 5;

class Serial {
    constructor(line) {
        this.line = line;
        const shared = new SharedArrayBuffer(4 * COUNTERS + RING);
        this.counters = new Int32Array(shared, 0, COUNTERS);
        this.ring = new Uint8Array(shared, 4 * COUNTERS);
        this.counters[CUT] = NEVER;
        this.counters[SIZE] = 2 << 20;
        this.input = []; // what came and was no Ctrl-C that interrupts
        this.out = [];
        this.got = false; // whether a read of sys.stdin has a byte
        this.kept = null; // the output is kept here instead, when it is not for the host
        this.interrupts = () => -1; // the character that interrupts
        this.interrupt = () => {};
        this.isInterrupted = () => false; // whether the exception is still to be raised
        this.worker = new Worker(new URL(import.meta.url), {
            workerData: { shared, line },
        });
        // A thread needs this one's event loop to start, which is deaf once a program runs.
        this.started = new Promise((resolve) => this.worker.once("message", resolve));
    }

    // Take in what has come.
    pump() {
        let tail = this.counters[TAIL];
        const head = Atomics.load(this.counters, HEAD);
        if (tail === head) {
            this.checkPower();
            return;
        }
        const interrupts = this.interrupts();
        for (; tail !== head; tail++) {
            const byte = this.ring[tail % RING];
            if (byte === interrupts) this.interrupt();
            else this.input.push(byte);
        }
        Atomics.store(this.counters, TAIL, tail);
        Atomics.notify(this.counters, TAIL);
    }

    // Return the next byte for the prompt or for sys.stdin, or undefined.
    take() {
        this.checkPower();
        return this.input.shift();
    }

    checkPower() {
        const taken = this.counters[TAIL] - this.input.length;
        if (taken >= Atomics.load(this.counters, CUT)) {
            this.flush();
            die("SIGKILL");
        }
    }

    // Block until something has come or `ms` are over.
    wait(ms) {
        this.flush();
        Atomics.wait(this.counters, HEAD, this.counters[TAIL], ms);
    }

    // Let JavaScript's other tasks run until something has come.
    async idle() {
        this.flush();
        const waiting = Atomics.waitAsync(this.counters, HEAD, this.counters[TAIL]);
        if (waiting.async) await waiting.value;
    }

    put(byte) {
        const out = this.kept || this.out;
        // A board's print() ends its lines so; what the prompt prints does already.
        if (byte === 10 && out[out.length - 1] !== 13) out.push(13);
        out.push(byte);
    }

    print(text) {
        this.out.push(...Buffer.from(text, "latin1"));
    }

    flush() {
        const data = Buffer.from(this.out);
        this.out = [];
        for (let at = 0; at < data.length; ) {
            at += fs.writeSync(this.line, data, at);
        }
    }
}

// -- the flash ------------------------------------------------------------------------------------

// The port has the error numbers of WASI; MicroPython's own, which a board has, are Linux's.
const WASI = {
    ENOENT: 44, EEXIST: 20, ENOTDIR: 54, EISDIR: 31, ENOTEMPTY: 55, EINVAL: 28, ENOSPC: 51,
    EROFS: 69, EPERM: 63, EACCES: 2, EBUSY: 10, EXDEV: 75, EIO: 29, EBADF: 8, EAGAIN: 6,
    ENAMETOOLONG: 37, EMFILE: 33, ESPIPE: 70, ENOSYS: 52,
};
const LINUX = {
    ENOENT: 2, EEXIST: 17, ENOTDIR: 20, EISDIR: 21, ENOTEMPTY: 39, EINVAL: 22, ENOSPC: 28,
    EROFS: 30, EPERM: 1, EACCES: 13, EBUSY: 16, EXDEV: 18, EIO: 5, EBADF: 9, EAGAIN: 11,
    ENAMETOOLONG: 36, EMFILE: 24, ESPIPE: 29, ENOSYS: 38,
};
const FROM_WASI = new Map(Object.keys(WASI).map((name) => [WASI[name], LINUX[name]]));
// A board knows no permissions; before 1.25 the port says this of a file that is no directory.
FROM_WASI.set(WASI.EACCES, LINUX.ENOTDIR);

const BLOCK = 4096;
const blocks = (size) => Math.ceil(size / BLOCK);

class Flash {
    constructor(folder, rom, serial, ram) {
        this.ram = ram;
        this.folder = folder;
        this.rom = rom;
        this.serial = serial;
    }

    // Return the blocks in use; as on littlefs, a directory takes two.
    used(folder = this.folder) {
        let sum = 2;
        for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
            const full = path.join(folder, entry.name);
            if (entry.isDirectory()) sum += this.used(full);
            else sum += blocks(fs.lstatSync(full).size);
        }
        return sum;
    }

    size() {
        return Math.floor(Atomics.load(this.serial.counters, SIZE) / BLOCK);
    }

    free() {
        // A flash without an end is not looked through.
        if (Atomics.load(this.serial.counters, SIZE) === NEVER) return 1 << 16;
        return Math.max(0, this.size() - this.used());
    }

    // An operation that changes the flash begins; true if the power goes in the middle of it.
    last() {
        const { counters } = this.serial;
        if (!Atomics.load(counters, OPERATIONS)) return false;
        return Atomics.sub(counters, OPERATIONS, 1) === 1;
    }

    cut() {
        this.serial.flush();
        die("SIGKILL");
    }

    // Make this the root of the interpreter's file system.
    mount(FS) {
        const flash = this;
        const fail = (code) => new FS.ErrnoError(WASI[code] ?? WASI.EIO);
        const host = (node) => {
            const names = [];
            for (; node.parent !== node; node = node.parent) names.unshift(node.name);
            if (names[0] === "rom") return path.join(flash.rom, ...names.slice(1));
            return path.join(flash.folder, ...names);
        };
        const guard = (call) => (...args) => {
            try {
                return call(...args);
            } catch (error) {
                if (error instanceof FS.ErrnoError || !error.code) throw error;
                throw fail(error.code);
            }
        };
        const change = (node, blocksMore, call) => {
            if (host(node).startsWith(flash.rom)) throw fail("EROFS");
            if (blocksMore > 0 && flash.free() < blocksMore) throw fail("ENOSPC");
            const last = flash.last();
            const result = call(last);
            if (last) flash.cut();
            return result;
        };
        const child = (parent, name) => host({ parent, name });
        const create = (parent, name, mode) => {
            const node = FS.createNode(parent, name, mode, 0);
            node.node_ops = nodeOps;
            node.stream_ops = streamOps;
            return node;
        };
        const attributes = (stat) => ({
            dev: 1, ino: 0, mode: stat.mode, nlink: 1, uid: 0, gid: 0, rdev: 0, size: stat.size,
            atime: stat.atime, mtime: stat.mtime, ctime: stat.ctime, blksize: BLOCK,
            blocks: blocks(stat.size) * (BLOCK / 512),
        });
        const nodeOps = {
            getattr: (node) => attributes(fs.lstatSync(host(node))),
            setattr: (node, wanted) => {
                if (wanted.size === undefined) return;
                change(node, blocks(wanted.size) - blocks(fs.statSync(host(node)).size), () =>
                    fs.truncateSync(host(node), wanted.size),
                );
            },
            lookup: (parent, name) => {
                const ram = flash.ram && parent.parent === parent && name === "ram";
                return create(parent, name, ram ? 0o40777 : fs.lstatSync(child(parent, name)).mode);
            },
            mknod: (parent, name, mode) => {
                const full = child(parent, name);
                const folder = FS.isDir(mode);
                change({ parent, name }, folder ? 2 : 0, (last) => {
                    if (!last && folder) fs.mkdirSync(full);
                    else if (!last) fs.closeSync(fs.openSync(full, "wx"));
                });
                return create(parent, name, mode);
            },
            rename: (node, parent, name) => {
                const from = host(node);
                change(node, 0, (last) => last || fs.renameSync(from, child(parent, name)));
                node.name = name;
                node.parent = parent;
            },
            unlink: (parent, name) => {
                const full = child(parent, name);
                change({ parent, name }, 0, (last) => last || fs.unlinkSync(full));
            },
            rmdir: (parent, name) => {
                const full = child(parent, name);
                change({ parent, name }, 0, (last) => last || fs.rmdirSync(full));
            },
            readdir: (node) => {
                const names = fs.readdirSync(host(node));
                return [".", "..", ...names, ...(node.parent === node ? ["rom"] : [])];
            },
        };
        const streamOps = {
            open: (stream) => {
                if (FS.isDir(stream.node.mode)) return;
                const writes = (stream.flags & 3) !== 0;
                if (writes && host(stream.node).startsWith(flash.rom)) throw fail("EROFS");
                stream.host = fs.openSync(host(stream.node), writes ? "r+" : "r");
            },
            close: (stream) => {
                if (stream.host !== undefined) fs.closeSync(stream.host);
                stream.host = undefined;
            },
            read: (stream, buffer, offset, length, position) => {
                if (stream.host === undefined) throw fail("EISDIR");
                return length ? fs.readSync(stream.host, buffer, offset, length, position) : 0;
            },
            write: (stream, buffer, offset, length, position) => {
                if (!length) return 0;
                const { size } = fs.fstatSync(stream.host);
                const more = blocks(Math.max(size, position + length)) - blocks(size);
                return change(stream.node, more, (last) => {
                    // What a program was writing when the power went has come in part.
                    const n = last ? length >> 1 : length;
                    return fs.writeSync(stream.host, buffer, offset, n, position);
                });
            },
            llseek: (stream, offset, whence) => {
                let position = offset;
                if (whence === 1) position += stream.position;
                if (whence === 2) position += fs.fstatSync(stream.host).size;
                if (position < 0) throw fail("EINVAL");
                return position;
            },
            fsync: () => 0,
        };
        for (const ops of [nodeOps, streamOps]) {
            for (const name of Object.keys(ops)) ops[name] = guard(ops[name]);
        }
        FS.root = null; // else the root is busy
        FS.mount({ mount: () => create(null, "/", 0o40777) }, {}, "/");
        if (this.ram) FS.mount(FS.filesystems.MEMFS, {}, "/ram");
    }

    // Answer os.statvfs(): the port makes its numbers up.
    statfs(view, size, buffer) {
        const wide = size > 64; // since 1.28 or so the counts have 64 bits
        const put = (at, n) => {
            if (wide) view.setBigUint64(buffer + at, BigInt(n), true);
            else view.setUint32(buffer + at, n, true);
        };
        new Uint8Array(view.buffer, buffer, size).fill(0);
        const free = this.free();
        put(8, this.size()); // f_blocks
        put(wide ? 16 : 12, free); // f_bfree
        put(wide ? 24 : 16, free); // f_bavail
        view.setUint32(buffer + 4, BLOCK, true); // f_bsize
        view.setUint32(buffer + (wide ? 60 : 40), BLOCK, true); // f_frsize
        view.setUint32(buffer + (wide ? 56 : 36), 255, true); // f_namelen
    }
}

// -- one life of the interpreter ------------------------------------------------------------------

const SPINNING = 200; // so many questions for the time with nothing between them: time.sleep()
const LEAP = 1 << 28; // ms

// Stand between the interpreter and what it calls: each call is a chance to see what has come.
function instrument(imports, serial, flash, memory) {
    const { env } = imports;
    let asked = 0;
    let before = 0;
    const wrap = (group, name, sign) => {
        const call = group[name];
        group[name] = (...args) => {
            asked = 0;
            serial.got = false;
            const result = call(...args);
            if (name === "fd_write") serial.flush();
            serial.pump();
            if (sign * result > 0) return sign * (FROM_WASI.get(sign * result) ?? sign * result);
            return result;
        };
    };
    for (const name of Object.keys(env)) {
        if (name.startsWith("__syscall_")) wrap(env, name, -1);
        if (name.startsWith("fd_")) wrap(env, name, 1); // both groups are one object
    }
    env.__syscall_statfs64 = (name, size, buffer) => {
        flash.statfs(new DataView(memory()), size, buffer);
        return 0;
    };
    const ticks = env.mp_js_ticks_ms;
    env.mp_js_ticks_ms = () => {
        const now = performance.now();
        asked = now - before < 0.05 ? asked + 1 : 0;
        serial.pump();
        if (asked > SPINNING && !serial.isInterrupted()) {
            serial.wait(1);
            serial.pump();
        }
        before = performance.now();
        // The port's sleep looks at nothing but the time: a leap is what ends it.
        return asked > SPINNING && serial.isInterrupted() ? ticks() + LEAP : ticks();
    };
    const time = env.mp_js_time_ms;
    env.mp_js_time_ms = () => {
        serial.pump();
        return time();
    };
}

class Life {
    constructor(serial, flash) {
        this.serial = serial;
        this.flash = flash;
        this.paste = null;
        this.line = []; // of the raw prompt, its first bytes
    }

    async start(port, raw) {
        const { serial, flash } = this;
        const instantiate = WebAssembly.instantiate;
        let memory;
        WebAssembly.instantiate = async (binary, imports) => {
            instrument(imports, serial, flash, () => memory.buffer);
            const result = await instantiate(binary, imports);
            ({ memory } = (result.instance ?? result).exports);
            return result;
        };
        try {
            this.mp = await port.loadMicroPython({
                heapsize: 16 << 20, // it takes more, but in 1.29 not for large pieces
                pystack: 2 * 1024, // more, and a deep recursion overflows the stack of C
                linebuffer: false,
                stdin: () => this.readStdin(),
                stdout: (data) => serial.put(data[0]),
                stderr: (data) => serial.put(data[0]),
            });
        } finally {
            WebAssembly.instantiate = instantiate;
        }
        const { mp } = this;
        serial.interrupts = () => mp._module._mp_hal_get_interrupt_char();
        serial.interrupt = () => mp._module._mp_sched_keyboard_interrupt();
        const at = this.findPending(memory);
        serial.isInterrupted = () => new Int32Array(memory.buffer, at, 1)[0] !== 0;
        flash.mount(mp.FS);
        mp.registerJsModule("_board", { reset: () => this.reset() });
        mp.runPython("__import__('sys').path.append('/rom'); __import__('_firmware')");
        this.raw = raw;
    }

    // Find where the interpreter keeps the exception that it has to raise: 0 but for that time, and
    // then a pointer to what lies nearby.
    findPending(memory) {
        const look = () => new Int32Array(memory.buffer, 0, 1 << 18).slice();
        const idle = look();
        this.mp._module._mp_sched_keyboard_interrupt();
        const pending = look();
        this.mp.runPython("try:\n for _ in (0, 1): pass\nexcept KeyboardInterrupt: pass");
        const after = look();
        const found = [];
        for (let i = 0; i < idle.length; i++) {
            const changed = pending[i] !== idle[i] && idle[i] === 0 && after[i] === 0;
            if (changed && Math.abs(pending[i] - 4 * i) < 4096) found.push(i);
        }
        if (found.length !== 1) throw new Error(`no pending exception among ${found.length}`);
        return 4 * found[0];
    }

    // Forget the interpreter, as a soft reset does, with the files that it has open.
    end() {
        for (const stream of this.mp.FS.streams) {
            if (stream?.host !== undefined) fs.closeSync(stream.host);
        }
        this.serial.interrupts = () => -1;
        this.serial.interrupt = () => {};
        this.serial.isInterrupted = () => false;
    }

    reset() {
        this.serial.flush();
        die("SIGHUP");
    }

    readStdin() {
        for (;;) {
            const byte = this.serial.take();
            if (byte !== undefined) {
                this.serial.got = true;
                return byte;
            }
            // A read of more than there is ends here; its first byte is waited for.
            if (this.serial.got) return null;
            this.serial.wait(1000);
            this.serial.pump();
            if (this.serial.isInterrupted()) return null;
        }
    }

    // Run a program of the flash; true if it wants a soft reset.
    run(name) {
        if (!fs.existsSync(path.join(this.flash.folder, name))) return false;
        this.execute("__import__('micropython').kbd_intr(3)");
        const ended = this.execute(`execfile(${JSON.stringify(name)})`);
        // The jump is where a Ctrl-C of the last moment comes out, here rather than at the prompt.
        this.execute("__import__('micropython').kbd_intr(-1)\nfor _ in (0, 1): pass");
        return ended;
    }

    execute(code) {
        try {
            this.mp.runPython(code);
        } catch (error) {
            if (error.type === "SystemExit") return true;
            if (error.name !== "PythonError") throw error;
            const text = error.message.replace(/ {2}File "<stdin>", line \d+, in <module>\n/, "");
            this.serial.print(text.replace(/\r?\n/g, "\r\n"));
        }
        return false;
    }

    async live() {
        const { serial, mp } = this;
        if (this.run("boot.py")) return;
        if (!this.raw && this.run("main.py")) return;
        // The prompt begins as the friendly one, always.
        serial.kept = this.raw ? [] : null;
        mp.replInit();
        serial.kept = null;
        if (this.raw) mp.replProcessChar(CTRL_A);
        for (;;) {
            const byte = serial.take();
            if (byte === undefined) {
                await serial.idle();
                serial.pump();
            } else if (this.raw ? this.feedRaw(byte) : this.feedFriendly(byte)) {
                return;
            }
        }
    }

    feedFriendly(byte) {
        const { serial, mp } = this;
        if (byte !== CTRL_A) return mp.replProcessChar(byte) !== 0;
        // It is a plain character in paste mode: what is printed tells.
        serial.kept = [];
        mp.replProcessChar(byte);
        const printed = Buffer.from(serial.kept).toString("latin1");
        serial.kept = null;
        serial.print(printed);
        this.raw = printed.includes("raw REPL; CTRL-B to exit");
        this.line = [];
        return false;
    }

    feedRaw(byte) {
        const { serial, mp, line } = this;
        if (this.paste) return this.feedPaste(byte);
        if (byte === CTRL_A && line.length === 2 && line[0] === CTRL_E) {
            // Raw paste, of which the port knows but which it cannot read.
            mp.replProcessChar(CTRL_C);
            this.line = [];
            if (line[1] === 65) {
                this.paste = { left: 128, code: [] };
                serial.print("R\x01\x80\x00\x01");
            } else {
                serial.print("R\x00>");
            }
            return false;
        }
        if (byte === CTRL_B) this.raw = false;
        if (byte <= CTRL_D && byte >= CTRL_A) this.line = [];
        else if (line.length < 3) line.push(byte);
        return mp.replProcessChar(byte) !== 0;
    }

    feedPaste(byte) {
        const { serial, mp, paste } = this;
        if (byte !== CTRL_C && byte !== CTRL_D) {
            paste.code.push(byte);
            if (--paste.left === 0) {
                paste.left = 128;
                serial.print("\x01");
            }
            return false;
        }
        serial.print("\x04");
        this.paste = null;
        const code = byte === CTRL_C ? Buffer.from("raise KeyboardInterrupt") : paste.code;
        for (const c of code) mp.replProcessChar(c);
        // The raw prompt says OK first, which the host has not asked for.
        let dropped = 0;
        const put = serial.put;
        serial.put = (c) => (dropped < 2 ? dropped++ : put.call(serial, c));
        try {
            return mp.replProcessChar(CTRL_D) !== 0;
        } finally {
            serial.put = put;
        }
    }
}

async function main(module, folder, rom, line, ram) {
    const serial = new Serial(Number(line));
    const flash = new Flash(path.resolve(folder), path.resolve(rom), serial, ram);
    const port = await import(pathToFileURL(module));
    await serial.started;
    for (let raw = false; ; ) {
        const life = new Life(serial, flash);
        await life.start(port, raw);
        await life.live();
        life.end();
        raw = life.raw;
        serial.print("MPY: soft reboot\r\n");
        serial.flush();
    }
}

if (isMainThread) {
    main(...process.argv.slice(2)).catch((error) => {
        fs.writeSync(2, `${error?.stack ?? error}\n`);
        die("SIGABRT");
    });
} else {
    readSerial(workerData);
}
