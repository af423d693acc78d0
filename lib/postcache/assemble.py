"""
What happens once, when a face is made: the parts are made and put together.

Loaded for it, and then given up, as `checks` is.
"""

from .checks import check_numbers

# isort: split
# Loaded by `checks`: MicroPython does not look for a submodule in a package with a __getattr__.
from . import ports as runtime
from .log import Log
from .ports import forget
from .send import Outbox
from .send.resume import resume


def assemble(
    uplink,
    frame,
    cache_path,
    *,
    async_interval=None,
    upload_limit=500,
    timeout=10,
    max_bytes=None,
    http=None,
    clock=None,
    ports=runtime,
    **options,
):
    """
    Give an `uplink.Uplink` its parts.

    Args:
        frame: an `envelope.Frame`.
        ports: what stands for the module `ports`: anything with its Clock, Directory, Group, Http
            and Worker.
        others: as `client.POSTCache` has them, and raises for them; `options` are those of
            `options.Options`.
    """
    choice = None
    if options:
        from .options import Options

        choice = Options(**options)
    check_numbers(timeout, upload_limit, max_bytes, async_interval)
    uplink.frame = frame
    uplink.encode = frame.encode
    uplink.timeout = timeout
    uplink.immediate = not async_interval
    uplink.sending = runtime.Lock()
    uplink.clock = clock or ports.Clock()
    if frame.url is not None:
        uplink.http = http or ports.Http(frame.url, *(choice.transport if choice else ()))
    uplink.fs = fs = cache_path if hasattr(cache_path, "files") else ports.Directory(cache_path)
    try:
        uplink.storage = log = Log(fs, max_bytes, choice and choice.slot_size)
        resume(log)
        uplink.commit = uplink.hold = (ports.Group(log) if ports.Group else log).append
        if uplink.http:
            uplink.outbox = Outbox(
                log,
                uplink.http,
                uplink.clock,
                frame,
                upload_limit,
                int((async_interval or 0) * 1000),
            )
        if choice:
            choice.apply(uplink)
        for name in ("assemble", "checks", "send.resume"):
            forget(__name__.replace("assemble", name))
        if uplink.outbox and async_interval and ports.Worker:
            uplink.worker = ports.Worker(uplink)  # last: its thread may send at once
    except BaseException:
        fs.close()
        raise
