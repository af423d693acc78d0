"""The numbers that a person wants to see, loaded when somebody asks."""


def collect(cache):
    """Return `POSTCache.stats`: see there for what each number means."""
    log = cache._log
    outbox = cache._outbox
    held = len(cache._held or ())
    if not cache._ages:  # from now on
        from .ages import Ages

        cache._ages = Ages(log, cache._clock)
        cache._watchers += (cache._ages.note,)
    stats = {
        "stream": log.stream,
        "added": log.stored - log.opened + held,
        "sent": 0,
        "waiting": len(log) + held,
        "bytes": None,
        "age_ms": cache._ages.oldest(),
        "dropped": log.dropped,
        "rejected": 0,
        "damaged": log.damaged,
        "errors": log.errors,
        "writes": log.writes,
        "retries": 0,
        "status": None,
        "error": None,
        "blocked": False,
        "next_try_ms": 0,
        "journal": "slot" if getattr(log.journal, "_size", 0) else "append",
    }
    try:
        files = log._fs.files()
        stats["bytes"] = sum([size for _, size in files])
        if any(name[:8] == "rejected" for name, _ in files):
            from .rejects import Rejects

            stats["rejected"] = Rejects(log, False).total
    except OSError:
        pass  # closed, or the disk is away: what is in RAM is still true
    if outbox:
        for name in ("sent", "retries", "status", "error", "blocked"):
            stats[name] = getattr(outbox, name)
        stats["next_try_ms"] = outbox.wait_ms()
    return stats
