"""What a power cut left half done with dead letters: looked for when a log is opened, once."""


def resume(log):
    """
    Complete what was begun: a record that was set aside, or others that were put back.

    What cannot be read or written is counted: the next requeue or opening tries again.
    """
    requeued = _exists(log, "requeue")
    # One record alone was on its way: it may have been set aside, and not passed over.
    alone = log.sending == log.acked + 1 and (
        _exists(log, "rejected.log") or _exists(log, "rejected-2.log")
    )
    if requeued or alone:
        from .dead_letters import DeadLetters

        try:
            if alone:
                DeadLetters(log).pass_over()
            if requeued:
                DeadLetters(log).resolve()
        except OSError:
            log.errors += 1
        log.clean()  # what was passed over may have been the last of its segment


def _exists(log, name):
    try:
        log.fs.size(name)
        return True
    except OSError as e:
        return e.errno != 2  # what cannot be looked at may be there
