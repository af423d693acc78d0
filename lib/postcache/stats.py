"""The numbers that a person wants to see, loaded when somebody asks."""


def collect(log, outbox):
    """Return `POSTCache.stats`: see there for what each number means."""
    stats = {
        "stream": log.stream,
        "added": log.stored - log.opened,
        "sent": 0,
        "waiting": len(log),
        "dropped": log.dropped,
        "rejected": 0,
        "damaged": log.damaged + log.journal.damaged,
        "errors": log.errors,
        "retries": 0,
        "status": None,
        "error": None,
        "next_try_ms": 0,
        "journal": type(log.journal).__name__[:-7].lower(),
    }
    if outbox:
        for name in ("sent", "retries", "status", "error"):
            stats[name] = getattr(outbox, name)
        stats["next_try_ms"] = outbox.wait_ms()
    return stats
