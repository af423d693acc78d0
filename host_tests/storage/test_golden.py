"""
Logs that older versions left: each opens with either journal, and everything in it is still there.

golden/README.md says how they were made. They are opened as copies, and are never made anew: what
a version wrote is what it wrote.
"""

import json
import shutil

import pytest
from logs import GOLDEN, LOGS

from core.support import Http
from postcache import POSTCache


@pytest.fixture
def golden(tmp_path):
    def copy(name):
        return shutil.copytree(GOLDEN / name, tmp_path / name)

    return copy


def test_every_golden_log_is_tested():
    assert {path.name for path in GOLDEN.iterdir() if path.is_dir()} == set(LOGS)


@pytest.mark.parametrize("slot_size", [0, 128, 512])
@pytest.mark.parametrize("name", LOGS)
def test_s11_a_log_of_an_older_version_opens_with_all_that_is_in_it(name, slot_size, golden):
    stream, acked, waiting, sending, following = LOGS[name]
    path = golden(name)
    http = Http()
    cache = POSTCache("http://s/", path, http=http, slot_size=slot_size)
    log = cache.storage
    assert log.stream == stream
    assert log.acked == acked
    assert log.sending == sending
    assert log.dropped == (60 if name == "v1-dropped" else 0)
    assert [(seq, json.loads(payload)) for seq, payload in log.read(None)] == waiting
    cache.outbox._next = 1 << 60
    assert cache.add_request("new") == following
    assert cache.flush()
    cache.close()
    assert http.lines() == [value for _, value in waiting] + ["new"]
    assert {headers["Postcache-Stream"] for headers, _ in http.posts} == {stream}
    if sending:  # the batch in flight is repeated as it was
        assert http.posts[0][0]["Postcache-Last"] == str(sending)


@pytest.mark.parametrize("name", LOGS)
def test_s11_a_log_of_an_older_version_goes_from_journal_to_journal(name, golden):
    _, _, waiting, _, following = LOGS[name]
    path = golden(name)
    values = [value for _, value in waiting]
    number = following
    for slot_size in (128, 0, 512, 128, 0):
        with POSTCache(None, path, slot_size=slot_size) as cache:
            seq = cache.add_request(slot_size)
            # Each opening may pass over the numbers of a torn line anew.
            assert seq == number or (name == "v1-torn" and seq > number)
            values.append(slot_size)
            number = seq + 1
    http = Http()
    with POSTCache("http://s/", path, http=http) as cache:
        assert cache.flush()
    assert http.lines() == values


def test_a_log_of_a_newer_version_is_refused_and_not_touched(golden):
    path = golden("v1-small")
    from postcache.log.line import encode

    (path / "cursor-a").write_bytes(encode(2, b'[2, "0a1b2c3d4e5f6071", 0, 0, 0, "new"]'))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    for slot_size in (0, 128):
        with pytest.raises(OSError, match="newer"):
            POSTCache(None, path, slot_size=slot_size)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
