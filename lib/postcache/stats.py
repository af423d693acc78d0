"""The numbers that a person wants to see, loaded when somebody asks."""


def collect(log, outbox, held):
    """Return `POSTCache.stats`: see there for what each number means."""
    stats = {
        "stream": log.stream,
        "added": log.stored - log.opened + len(held),
        "sent": 0,
        "waiting": len(log) + len(held),
        "dropped": log.dropped,
        "rejected": 0,
        "damaged": log.damaged,
        "errors": log.errors,
        "retries": 0,
        "status": None,
        "error": None,
        "next_try_ms": 0,
        "journal": "slot" if getattr(log.journal, "_size", 0) else "append",
    }
    if outbox:
        for name in ("sent", "retries", "status", "error"):
            stats[name] = getattr(outbox, name)
        stats["next_try_ms"] = outbox.wait_ms()
    return stats
