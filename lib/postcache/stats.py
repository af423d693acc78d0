"""The numbers that a person wants to see, loaded when somebody asks."""


def collect(uplink):
    """Return `Uplink.stats`: see there for what each number means."""
    log = uplink.storage
    outbox = uplink.outbox
    in_ram = len(uplink.buffered or ())
    if not uplink.ages:  # from now on
        from .log.ages import Ages

        uplink.ages = Ages(log, uplink.clock)
        uplink.watchers += (uplink.ages.note,)
    stats = {
        "stream": log.stream,
        "added": log.stored - log.opened + in_ram,
        "sent": 0,
        "waiting": len(log) + in_ram,
        "bytes": None,
        "age_ms": uplink.ages.oldest(),
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
        "journal": log.journal.kind,
    }
    try:
        files = log.fs.files()
        stats["bytes"] = sum([size for _, size in files])
        if any(name[:8] == "rejected" for name, _ in files):
            from .send.dead_letters import DeadLetters

            stats["rejected"] = DeadLetters(log, False).total
    except OSError:
        pass  # closed, or the disk is away: what is in RAM is still true
    if outbox:
        for name in ("sent", "retries", "status", "blocked"):
            stats[name] = getattr(outbox, name)
        stats["error"] = outbox.error or None
        stats["next_try_ms"] = outbox.wait_ms()
    return stats
