"""Take away one sync, one check, one ordering at a time: for each, some test must fail.

A test that cannot fail proves nothing. Each mutation of the table below changes one place of
lib/postcache in a copy of the project, and the tests that are named beside it run there: one of
them must fail, by an assertion. Before anything is changed all of them must pass.

    python tools/mutate.py                 all, a row each: what was removed, and what caught it
    python tools/mutate.py "log: freeze"   those whose name begins so
    python tools/mutate.py --list          the names, and what each would break

What a mutation replaces has to be in its file exactly once, so the table cannot fall behind the
code. Exit status: 0; 1 if one survives or a test fails unmutated; 2 if it cannot run.
"""

import argparse
import collections
import concurrent.futures
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import xml.etree.ElementTree
from pathlib import Path

import get_runtimes

PROJECT = Path(__file__).resolve().parent.parent
# Seconds. A mutation may turn a loop into an endless one: that is no assertion.
TIMEOUT = 120
LEFT_OUT = shutil.ignore_patterns("__pycache__", "build", "dist", "typings", ".*")

# How the table names tests.
FILES = {
    "line": "host_tests/core/test_line.py",
    "log": "host_tests/core/test_log.py",
    "slots": "host_tests/core/test_slots.py",
    "outbox": "host_tests/core/test_outbox.py",
    "refused": "host_tests/core/test_refused.py",
    "options": "host_tests/core/test_options.py",
    "delivery": "host_tests/core/test_delivery.py",
    "stamps": "host_tests/core/test_stamps.py",
    "rejects": "host_tests/core/test_rejects.py",
    "client": "host_tests/core/test_client.py",
    "threads": "host_tests/storage/test_threads.py",
    "processes": "host_tests/storage/test_processes.py",
    "interrupts": "host_tests/storage/test_interrupts.py",
    # A scenario and a setup of the model: every power cut.
    "cuts": "host_tests/storage/test_power_cuts.py::test_no_cut_breaks_a_promise",
    # A file, a test and a file system: the same test under MicroPython.
    "board": "host_tests/runtimes/test_core_everywhere.py::test_core",
}

# ==== file, and then: name: promise that it breaks; the change, as in a diff, whatever its margin;
# the tests of which one must notice.
TABLE = r"""
==== line.py

checksum not compared: S6 damage is seen
    - if line[-1:] == b"\n" and b"%08x" % crc32(text) == line[:8]:
    + if line[-1:] == b"\n":
  line::test_every_single_bit_flip_is_seen_or_harmless

newline not looked at: S6 damage is seen
    - if line[-1:] == b"\n" and b"%08x" % crc32(text) == line[:8]:
    + if b"%08x" % crc32(text) == line[:8]:
  line::test_every_single_bit_flip_is_seen_or_harmless

checksum compared as a number: S6 damage is seen
    - if line[-1:] == b"\n" and b"%08x" % crc32(text) == line[:8]:
    + if line[-1:] == b"\n" and crc32(text) == int(line[:8], 16):
  line::test_every_single_bit_flip_is_seen_or_harmless

==== journal.py

append not synced: S1 what was stored survives a cut
    - self._file.flush()
  cuts[steady-posix-append]

file with half a line gone on with: S7 a failed write stores nothing
    - self._file = self._fs.open(name_of(seq), "wb")
    + self._file = self._fs.open(name_of(seq), "ab")
  board[test_slots.py-test_a_segment_that_was_written_before_the_error_does_not_hide_the_next_records-lfs2]

file kept after a failed write: S7 a failed write stores nothing
    - self.close()  # after an error the file takes no further line
  threads::test_failing_commits_under_load_cost_exactly_those_that_were_told
  client::test_a_full_disk_is_told_to_the_caller_and_the_next_add_works_when_there_is_room

what is not durable yet can be read: S2 only what was stored is sent
    - end = self._end if first == self._newest else 1 << 30
    + end = 1 << 30
  log::test_half_a_line_of_a_failed_write_is_no_damage

full file gone on with: S9 the newest file is a small one
    - if not self._file or firsts[-1:] != [self._newest] or self._end + size > self._limit:
    + if not self._file or firsts[-1:] != [self._newest]:
  log::test_a_full_file_is_left_alone_and_the_next_is_named_by_its_first_number

removed file gone on with: S1 what was stored survives a cut
    - if not self._file or firsts[-1:] != [self._newest] or self._end + size > self._limit:
    + if not self._file or self._end + size > self._limit:
  board[test_slots.py-test_a_segment_that_is_delivered_and_removed_is_not_gone_on_with-lfs2]

no room made: S8 the log stays within its bytes
    - make_room(size)
  log::test_full_the_oldest_segment_is_dropped_and_counted

==== slots.py

slot that is needed written to: S1 what was stored survives
    - self._tail, self._free = after, rest
    + self._tail, self._free = after, rest + used
  slots::test_full_slots_become_one_segment_and_are_used_again
  slots::test_records_come_out_in_order_with_their_numbers_also_after_reopening

slot freed one record early: S1 what was stored survives
    - while n < len(tail) and tail[n] <= acked:
    + while n < len(tail) and tail[n] <= acked + 1:
  slots::test_a_reader_goes_on_when_slots_are_written_out_or_used_again

slot freed one record late: S10 as few slots in use as can be
    - while n < len(tail) and tail[n] <= acked:
    + while n < len(tail) and tail[n] < acked:
  slots::test_delivered_in_tens_only_the_first_slots_are_ever_used

freed slots used last: S10 as few slots in use as can be
    - self._become(tail[n:], tail[1:n:3] + self._free, max(self._first, acked + 1))
    + self._become(tail[n:], self._free + tail[1:n:3], max(self._first, acked + 1))
  slots::test_delivered_in_tens_only_the_first_slots_are_ever_used

segment without what the slots hold: S1 what was stored survives
    - self._write(first or seq, size, self._pieces(tail, self._age, data), make_room)
    + self._write(first or seq, size, (data,), make_room)
  slots::test_a_record_too_big_for_a_slot_goes_to_a_segment_with_what_is_in_the_slots

lines of a segment not synced in order: S3 a cut leaves no gap
    - self._file.flush()
    + pass
  cuts[outage-posix-slots]

slots freed before the segment is written: S7 a failed write loses nothing
    - self._torn = True
    - try:
    + self._torn = True
    + self._tail = nothing
    + self._free = free
    + try:
  slots::test_a_segment_that_could_not_be_written_costs_nothing_that_is_in_slots

slots out of sight after a failed segment: S7 a failed write loses nothing
    - if not firsts or firsts[-1] != first:
    -     firsts.append(first)
    - self._first = first
    + pass
  slots::test_a_segment_that_could_not_be_written_costs_nothing_that_is_in_slots

segment that may hold too much not replaced: S7 a failed write stores nothing
    - self._torn = True
    + self._torn = False
  slots::test_a_segment_that_was_written_before_the_error_does_not_hide_the_next_records
  interrupts::test_no_exception_at_any_line_loses_what_was_stored

segment that may hold too much gone on with: S7 an interrupted write loses nothing
    - if self._torn or (tail and not self._fs.slot_size):
    + if tail and not self._fs.slot_size:
  interrupts::test_no_exception_at_any_line_loses_what_was_stored

slots never used again after a segment: S10 a record costs a commit
    - self._torn = False
  slots::test_acknowledged_records_do_not_come_back

slots that were written out not freed: S10 a record costs a commit
    - free = tail[1::3] + self._free
    + free = self._free
  slots::test_acknowledged_records_do_not_come_back

a reader that is overtaken not told: D3 nothing is passed over
    - if self._age != age:
    + if False:
  slots::test_a_reader_that_was_opened_before_slots_were_written_out_says_so

failed slot not removed: S7 a failed write stores nothing
    - fs.remove(slot_name(slot))
    + pass
  slots::test_a_failed_write_of_a_slot_stores_nothing_and_the_next_one_works

failed slot not noted: S7 a failed write stores nothing
    - self._stale = used
    + self._stale = ()
  slots::test_a_failed_write_of_a_slot_stores_nothing_and_the_next_one_works

failed slot that cannot be removed forgotten: S7 a failed write stores nothing
    -         if e.errno not in NOT_THERE:
    -             raise
    +         pass
      self._stale = ()
  slots::test_what_a_failed_write_may_have_left_is_removed_before_anything_else_is_written

slot that cannot be read now given up: S7 a failed read loses nothing
    - if e.errno not in NOT_THERE:
    -     raise
      piece = b"\0\n"  # counted by whoever reads it
  slots::test_a_slot_that_cannot_be_read_for_a_while_is_kept

damaged metadata told for ever: S6 damage stays local
    - NOT_THERE = (2, 20, 21, 84)
    + NOT_THERE = (2, 20, 21)
  slots::test_metadata_that_littlefs_cannot_read_costs_what_is_there_and_no_more

slot of any size: S10 a slot stays in its directory
    - if n > len(free) or self._torn or most > self._size or size + self._size > self._limit:
    + if n > len(free) or self._torn or size > self._limit:
  slots::test_a_record_too_big_for_a_slot_goes_to_a_segment_with_what_is_in_the_slots

lines of a group packed beyond a slot: S10 a slot stays in its directory
    - if chunks and len(chunks[-1]) + len(line) <= self._size:
    + if chunks:
  slots::test_what_is_stored_together_shares_a_slot_or_a_segment

slots hold more than a segment: S10 a segment is one block
    - if n > len(free) or self._torn or most > self._size or size + self._size > self._limit:
    + if n > len(free) or self._torn or most > self._size:
  slots::test_what_is_stored_together_shares_a_slot_or_a_segment

slot read beyond its records: S6 nothing but damage is counted
    - piece = f.read(tail[i + 2])
    + piece = f.read()
  slots::test_a_record_too_big_for_a_slot_goes_to_a_segment_with_what_is_in_the_slots

slots named by what was delivered: S3 order
    - self._become(tail[n:], tail[1:n:3] + self._free, max(self._first, acked + 1))
    + self._become(tail[n:], tail[1:n:3] + self._free, self._first)
  slots::test_what_is_stored_together_shares_a_slot_or_a_segment
  slots::test_a_reader_goes_on_when_slots_are_written_out_or_used_again
  slots::test_acknowledged_records_do_not_come_back
  slots::test_a_whole_life_with_a_server
  cuts[drain-posix-slots]

folders that take the last blocks: S8 a small disk is not filled by ourselves
    - if fs.free() < 4 * RESERVE:
    + if False:
  slots::test_without_room_for_its_folders_a_log_has_no_slots

==== opening.py

numbers of a torn end given out again: S3 a number names one record
    - log.stored = log.opened = max(last + passed, log.acked, log.sending)
    + log.stored = log.opened = max(last, log.acked, log.sending)
  log::test_numbers_that_a_caller_may_hold_are_not_reused_after_damage

torn end not seen: S6 damage takes no neighbour along
    - return record[0], rest and rest // SHORTEST + 1
    + return record[0], 0
  log::test_a_torn_tail_is_passed_over_and_takes_no_neighbour_along

torn file gone on with: S6 damage takes no neighbour along
    - if file:
    -     _close(file)
    -     file = None
  log::test_a_torn_tail_is_passed_over_and_takes_no_neighbour_along

numbers of a file without a record given out again: S3 a number names one record
    - return first - 1, size and size // SHORTEST + 1
    + return first - 1, 0
  log::test_numbers_in_a_file_that_is_all_damaged_are_not_reused

old content at the end of a file believed: S3 a number names one record
    - if record and record[0] >= first:
    + if record:
  log::test_old_content_at_the_end_of_a_file_takes_no_number_back

numbers of a torn slot given out again: S3 a number names one record
    - passed += rest // SHORTEST + 1
  slots::test_a_damaged_slot_costs_its_record_and_its_number_is_not_reused

numbers in slots given out again: S3 a number names one record
    - last = max(last, tail[-3])
    + pass
  slots::test_records_come_out_in_order_with_their_numbers_also_after_reopening

numbers that were delivered given out again: S3 a number names one record
    - log.stored = log.opened = max(last + passed, log.acked, log.sending)
    + log.stored = log.opened = max(last + passed, log.sending)
  log::test_numbers_are_not_reused_when_everything_was_delivered

numbers in flight given out again: S3 a number names one record
    - log.stored = log.opened = max(last + passed, log.acked, log.sending)
    + log.stored = log.opened = max(last + passed, log.acked)
  log::test_numbers_in_flight_are_not_reused_when_their_records_are_lost

what a killed process wrote not synced: S2 only what is durable is sent
    - file.flush()
  log::test_what_a_killed_process_left_is_synced_before_it_is_looked_at

cursor that cannot be read now taken for lost: D2 nothing is sent again under a new stream
      elif e.errno != 2:
    -     raise  # taken for lost it would have everything sent again: the next open tries
    +     pass
  log::test_a_cursor_that_cannot_be_read_for_a_while_is_not_taken_for_lost

slots that cannot be looked up now taken for none: S7 a failed read loses nothing
      if e.errno != 2:
    -     raise  # there may be some: the next open tries again
    +     pass
  slots::test_slots_that_cannot_be_looked_up_for_a_while_are_not_forgotten

older cursor wins: S4 what was acknowledged is gone
    - if generation > log.generation and not newer:
    + if (not log.generation or generation < log.generation) and not newer:
  log::test_acknowledged_records_do_not_come_back_and_their_segments_go

newer version not refused: S11 never touch a newer log
    - newer = version > _VERSION
    + newer = False
  log::test_a_newer_format_is_refused_in_a_sentence_and_not_touched

lost cursor makes what is long gone wait: D3 what is missing is counted
    - log.acked = firsts[0] - 1
    + pass
  log::test_a_lost_cursor_costs_duplicates_under_a_new_stream_never_records

slots not looked at without slot_size: S11 a log may change its journal
    - slots = True  # records may be in there, whatever is wanted now
    + pass  # records may be in there, whatever is wanted now
  slots::test_a_log_may_change_its_journal_at_any_time

dead slots written out again: S10 a record is written to a segment once
    - if last > done:
    + if last:
  slots::test_slots_that_were_written_out_are_not_written_out_again_after_reopening

order of the slots that of their names: S3 order
    - tail.sort()
  slots::test_slots_are_read_in_the_order_of_their_numbers

slot that cannot be read now taken for free: S7 a failed read loses nothing
    - if e.errno not in not_there:
    + if False:
          raise  # it may hold records: the next open tries again
  slots::test_an_error_while_slots_are_looked_at_is_told_and_loses_nothing

stranger's file taken for a slot: S5 opens on anything
    - if e.errno > 2:
    -     continue
  slots::test_strangers_in_the_way_are_left_alone

old content behind a slot's records believed: S3 order
    - elif record and record[0] > last:  # else older content
    + elif record:
  slots::test_old_content_behind_the_records_of_a_slot_is_not_believed

==== log.py

one cursor, always the same: S4, D2 a whole cursor at any time
    - self._fs.put("cursor-b" if generation & 1 else "cursor-a", encode(generation, text))
    + self._fs.put("cursor-a", encode(generation, text))
  cuts[ack-posix-append]

generation not counted on: S4 the newer cursor wins
    - self.generation = generation
    + self.generation = 1
  log::test_one_damaged_cursor_costs_one_step_at_most

stream not named before its first record: S3 (stream, number) is for ever
    - self._move()  # the stream has its name before its first record
    + pass  # the stream has its name before its first record
  log::test_a_stream_has_its_name_before_its_first_record

segments not removed at open: S8 no space for what is delivered
          self._move()  # the stream has its name before its first record
    - self._clean()
  log::test_segments_that_an_acknowledgement_left_behind_go_at_the_next_open

number taken before the record is durable: S7 a failed write takes no number
    - self.journal.append(self.stored + 1, lines, self._noted, self._make_room)
    - self.stored = seq
    + first, self.stored = self.stored + 1, seq
    + self.journal.append(first, lines, self._noted, self._make_room)
  client::test_a_full_disk_is_told_to_the_caller_and_the_next_add_works_when_there_is_room

slot used again before the cursor says so: D2 no number twice
    - self.journal.append(self.stored + 1, lines, self._noted, self._make_room)
    + self.journal.append(self.stored + 1, lines, self.acked, self._make_room)
  slots::test_a_slot_is_not_used_again_before_the_cursor_says_on_flash_that_it_is_free

append without the lock: S12 no number twice
    - with self._lock:
    + if True:
          seq = self.stored
  board[test_log.py-test_a_callback_in_the_middle_of_an_append_takes_no_number_twice-lfs2]

the last blocks counted on: S8 no ENOSPC of our own doing
    - most = min(self._max, total - RESERVE) if self._max else min(MAX_BYTES, total // 2)
    + most = min(self._max, total) if self._max else min(MAX_BYTES, total // 2)
  log::test_the_last_blocks_of_a_file_system_are_never_counted_on

what is there dropped when others fill the disk: S1 what was stored survives
    - self._room = max(used, most)
    + self._room = most
  log::test_a_disk_that_others_fill_later_is_no_reason_to_drop_what_is_there

drop not counted: D3 what is missing is counted
    - self.dropped += lost
  log::test_full_the_oldest_segment_is_dropped_and_counted

drop counts what was delivered: D3 what is missing is counted
    - lost = last - max(first - 1, self.acked)
    + lost = last - first + 1
  log::test_a_drop_counts_what_was_not_delivered_yet

drop not in the cursor: D3 what is missing is counted
      self._dropped_to = self.acked = last
    - self._put()
  cuts[drop_oldest-posix-append]

dropped before the cursor says so: D3 what is missing is counted
    - self._drop(first, firsts[0] - 1)
    - if not self._free(firsts[0]) or not self._remove(first):
    -     return  # dropping more would not help
    + if not self._remove(first):
    +     return  # dropping more would not help
    + self._drop(first, firsts[0] - 1)
  cuts[drop_oldest-posix-append]

more dropped when nothing can be removed: S7 a failed call loses nothing
    - return  # dropping more would not help
    + pass
  log::test_a_segment_that_cannot_be_removed_does_not_cost_the_next_one

dropped and delivered counted as dropped: D3 what is missing is counted
    - if self._dropped_to >= first:
    + if False:
  log::test_dropped_while_it_was_on_its_way_and_then_delivered_is_not_dropped

late answer takes the cursor back: S4 what is gone stays gone
    - self.acked = max(last, self.acked)
    + self.acked = last
  log::test_dropped_while_it_was_on_its_way_and_then_delivered_is_not_dropped

numbers that are not in turn believed: S3 order
    - elif last < record[0] < bound:
    + elif record[0] < bound:
  log::test_a_line_out_of_place_is_not_believed

numbers of the next file believed: S7 a failed write stores nothing
    - elif last < record[0] < bound:
    + elif last < record[0]:
  log::test_what_a_failed_write_left_behind_is_hidden_by_the_next_file

segment given up at the first error: S7 a failed read loses nothing
    - _TRIES = const(40)
    + _TRIES = const(1)
  outbox::test_what_cannot_be_read_for_a_while_is_kept

bad segment tried for ever: S6 damage stays local
    - if self._tries < _TRIES:
    -     raise
    + raise
  outbox::test_a_segment_that_stays_unreadable_does_not_hold_up_the_rest_for_ever

damage counted at each reading: D3 what is missing is counted
    - if (first, offset) > self._seen:
    + if True:
  log::test_damage_is_counted_once_however_often_it_is_read

freeze: nothing written: D4 a retry repeats bytes and key
      self.sending = last
    - return self._put()
    + return True
  outbox::test_a_retry_after_a_reboot_repeats_bytes_and_key

ack: nothing written: S4 what was acknowledged is gone
    - written = self.freeze(sending)
    + written = True
  slots::test_acknowledged_records_do_not_come_back

ack: not tried again when there is room: S8 ack works when the disk is full
    - self.freeze(sending)  # the disk was full: what was delivered has made room
    + pass  # the disk was full: what was delivered has made room
  log::test_an_acknowledgement_on_a_full_disk_is_written_once_there_is_room

segment removed one record early: S1 what was stored survives
    - while len(firsts) > 1 and firsts[1] <= self.acked + 1 and self._free(firsts[1]):
    + while len(firsts) > 1 and firsts[1] <= self.acked + 2 and self._free(firsts[1]):
  slots::test_a_segment_that_could_not_be_written_costs_nothing_that_is_in_slots

==== held.py

records that failed stay held: S7 a failed add stores nothing
    - group = held + list(payloads)
    + held += payloads
    + group = held[:]
  slots::test_held_records_stay_held_when_they_cannot_be_stored

held records forgotten before they are stored: S7 a failed write loses nothing
    - seq = self._append(group) if group else self._log.stored
    - held.clear()
    + held.clear()
    + seq = self._append(group) if group else self._log.stored
  slots::test_held_records_stay_held_when_they_cannot_be_stored

newest record first: S3 order
    - group = held + list(payloads)
    + group = list(payloads) + held
  slots::test_held_records_are_stored_together_and_by_flush_and_close

held records of any length: D6 a group fits into a segment
    - if len(held) + len(payloads) >= self._n or not self._fits(held + payloads):
    + if len(held) + len(payloads) >= self._n:
  slots::test_held_records_are_stored_before_they_outgrow_a_segment

group of any length: D6 a group fits into a segment
    - if held and not self._fits(group):
    + if False:
  slots::test_held_records_are_stored_before_they_outgrow_a_segment

==== outbox.py

acknowledged before it is sent: D1 at least once
      self.status = None
    + log.ack(batch[0], batch[1], 0)
  outbox::test_whatever_a_port_raises_keeps_the_records_and_is_told

a redirect taken for delivered: D1 at least once
    - if 200 <= status < 300 and (not self.confirm or self.confirm(status, headers, start)):
    + if 200 <= status < 400 and (not self.confirm or self.confirm(status, headers, start)):
  outbox::test_every_status_has_its_meaning

an interim answer taken for delivered: D1 at least once
    - if 200 <= status < 300 and (not self.confirm or self.confirm(status, headers, start)):
    + if 100 <= status < 300 and (not self.confirm or self.confirm(status, headers, start)):
  outbox::test_every_status_has_its_meaning

first batch not frozen: D4 a retry repeats bytes and key
    - log.freeze(batch[1])
    + pass
  outbox::test_a_retry_after_a_reboot_repeats_bytes_and_key

next batch not frozen with the ack: D4 a retry repeats bytes and key
    - self.log.ack(first, last, after[1] if after else 0)
    + self.log.ack(first, last, 0)
  outbox::test_the_next_batch_is_frozen_with_the_acknowledgement_of_the_last

frozen end not kept to: D4 a retry repeats bytes and key
    - seq >= last if last else size + n > self.most or number - first >= limit
    + size + n > self.most or number - first >= limit
  outbox::test_a_retry_after_a_reboot_repeats_bytes_and_key

batch with a gap: D2 line i is record first + i
    - elif number != seq + 1 or (
    + elif (
  outbox::test_a_batch_ends_before_a_gap_so_that_every_line_has_its_number

confirmation not asked for: D1 at least once
    - if 200 <= status < 300 and (not self.confirm or self.confirm(status, headers, start)):
    + if 200 <= status < 300:
  options::test_ack_wants_the_number_back

link not asked for: D6 no look-up without a link
    - if error:
    -     return self._idle(error)
    + pass
  options::test_online_is_asked_before_each_try_also_of_a_batch_that_is_in_flight

back-off forgotten while offline: a server is not asked too often
    - self._next = max(self._next, self.clock.ticks_ms() + 1000)
    + self._next = self.clock.ticks_ms() + 1000
  options::test_offline_a_back_off_is_not_forgotten

what is too old in flight sent all the same: D3 drops are counted
    - if not batch or batch[0] <= acked:
    + if not batch:
  options::test_all_of_it_may_be_too_old

bytes of a batch not remembered: 413 is not met again and again
    - seq >= last if last else size + n > self.most or number - first >= limit
    + seq >= last if last else size + n > BATCH or number - first >= limit
  refused::test_413_halves_and_remembers_the_size_that_worked

a delivery does not end the row: a bad run long ago does not slow down
    - self.row = self.failed = 0
    + self.failed = 0
  refused::test_a_server_that_refuses_everything_is_not_fed_the_backlog

record missing from a retry: D2 line i is record first + i
    - if number != seq:
    -     break
  outbox::test_a_batch_whose_last_record_is_damaged_does_not_take_the_next_one_in

short batch sent: D2 line i is record first + i
    - if seq <= last:
    + if False:
  outbox::test_damage_between_two_tries_gives_up_what_is_damaged_and_nothing_else

damage waited for: D1 flush comes to an end
    - log.acked = max(log.acked, self._goal)  # what is left is damaged: no waiting
    + pass  # what is left is damaged: no waiting
  outbox::test_nothing_waits_behind_the_last_record_when_that_is_damaged

==== refused.py

right half tried as a whole: D5 a bad record costs few requests
    - return max(1, (outbox.suspect - first + 1) // 2)
    + return outbox.suspect - first + 1
  refused::test_one_bad_record_among_500_costs_at_most_12_requests

refusing everything costs a search each time: the backlog is not fed to a wrong path
    - if outbox.row > 1:
    + if False:
  refused::test_a_server_that_refuses_everything_is_not_fed_the_backlog

bad record passed over before it is set aside: D3 rejects are kept
    - Rejects(log).add(first, status, reason, record)
    - log.ack(first, last, 0)
    + log.ack(first, last, 0)
    + Rejects(log).add(first, status, reason, record)
  refused::test_refusing_is_durable_before_the_record_is_passed_over

whole batch set aside: D5 the others arrive
    - if last > first:
    + if False:
  refused::test_several_bad_records_in_every_place

half not frozen: D5 the others arrive, also when each try ends with a restart
    - log.freeze((first + last - 1) // 2)
    + log.sending = 0
  refused::test_after_a_reboot_in_the_middle_of_the_search_it_goes_on

locked out and tried at once: 401 is retried slowly
    - return error, max(pause, _SLOW)
    + return error, pause
  refused::test_statuses_that_a_person_must_mend_keep_everything_and_are_tried_slowly

a fleet that comes back together: 401 has jitter
    - outbox.failed = 9  # a fleet that was locked out does not come back together, either
  refused::test_statuses_that_a_person_must_mend_keep_everything_and_are_tried_slowly

no end to a row of rejects: a server that refuses everything gets no backlog
    - if outbox.row < _ROW:
    + if True:
  refused::test_a_server_that_refuses_everything_is_not_fed_the_backlog

gzip after 415: a server that takes no gzip gets the records
    - outbox.pack = None
  options::test_415_ends_compression_for_good

==== rejects.py

what is set aside sent again after a cut: D2 not delivered and put back
    - log.acked = head[0]
    + pass
  refused::test_refusing_is_durable_before_the_record_is_passed_over

what waits put back as well: D2 once
    - if log.acked < seq <= log.stored:
    + if False:
  refused::test_what_waits_is_not_put_back

put back before that is on flash: D2 once
    - if log._noted < log.acked and not log.freeze(log.sending):
    + if False:
  refused::test_nothing_is_put_back_before_the_cursor_has_passed_it_over

==== options.py

any verify: verify=False has to be said
    - if verify is not True and verify is not False:  # None, 0 or a path is a mistake
    + if False:
  options::test_bad_options_are_value_errors_before_anything_is_made

real errors of a disk taken for full: S7 a failed add says so
    - if not payloads or e.args[1:] != ("full",):
    + if not payloads:
  options::test_a_real_error_of_the_disk_is_raised_whatever_the_policy

what is held is dropped in silence: S1 flush stores or raises
    - if not payloads or e.args[1:] != ("full",):
    + if e.args[1:] != ("full",):
  options::test_what_is_held_is_not_lost_when_the_log_is_full

drop not counted: D3 what is missing is counted
    - log.dropped += len(payloads)
    + pass
  options::test_drop_newest_keeps_what_is_there

any number is an ack: confirm wants the last one
    - headers.get("postcache-ack") == sent["Postcache-Last"]
    + headers.get("postcache-ack")
  options::test_ack_wants_the_number_back

==== ages.py

age rounded up: what is young is not dropped
    - if now - self._begun < self._step and len(marks) > 1:
    -     marks[-1] = (seq, now)
    + if now - self._begun < self._step and len(marks) > 1:
    +     marks[-1] = (seq, marks[-1][1])
  options::test_ages_are_never_too_old_and_take_little_room

marks without a bound: RAM is bounded
    - if len(marks) > _MARKS:
    + if False:
  options::test_ages_are_never_too_old_and_take_little_room

what is too old stays until the next try: D3 max_age
    - self.expire()
    + pass
  options::test_what_is_too_old_goes_also_when_no_try_is_due

==== events.py

recovered without a delivery: an event says what happened
    - elif outbox.sent > self._sent:
    + elif True:
  options::test_recovered_is_told_by_a_delivery_and_by_nothing_else

callback that raises: an event does not end the program
    - except (Exception, SystemExit):  # not the end of the thread that sends
    + except KeyError:
  options::test_a_callback_that_raises_or_comes_back_in_does_no_harm

told again and again: an error is told when it changes
    - if error != self._error:
    + if error:
  options::test_events_tell_of_trouble_once_and_of_its_end

==== client.py

held records not stored by flush: S1 flush stores what is held
      try:
    -     self._store()
    +     pass
      except OSError:
  slots::test_held_records_are_stored_together_and_by_flush_and_close

add_many held back: S1 durable when add_many returns
    - return self._add(bodies, json_dumps_kwargs, self._append)
    + return self._add(bodies, json_dumps_kwargs, self._hold)
  slots::test_add_many_is_durable_whatever_flush_every_says

record of any length: S1 a record fits into a segment
    - if not 0 < size <= self._log.max_record + OVERHEAD:
    + if not 0 < size:
  client::test_what_is_no_json_is_a_value_error_and_nothing_is_written

add after close: S12 one writer at a time
    - if self._closed:
    -     raise ValueError("closed")
  client::test_instances_do_not_share_attributes
  client::test_close_does_not_wait_for_a_server_that_is_not

directory kept after a failed open: S12 the next one may open it
      except BaseException:
    -     self._fs.close()
  board[test_client.py-test_a_directory_is_free_again_after_a_failed_open-posix]

==== ports/cpython.py

append not synced: S1 what was stored survives a cut
      def flush(self):
    -     _sync(self._fd)
    +     pass
  cuts[steady-posix-append]

name of a new file not synced: S1 what was stored survives a cut
    - self._sync_directory(self.path)
      return file
  cuts[roll-posix-append]

name of the log's directory not synced: S1 what was stored survives a cut
      try:
    -     self._sync_directory(os.path.dirname(path))
    +     pass
  processes::test_the_names_of_new_directories_are_synced

cursor and slots not synced: S1, S4
    -     _sync(fd)
      finally:
  cuts[ack-posix-append]

names of cursor and slots not synced: S1, S4
      folder = os.path.dirname(name)
    - self._sync_directory(folder)
  cuts[first_boot-posix-slots]

name of a slot that was removed and came again not synced: S1 what was stored survives a cut
    - self._named.discard(path)
  processes::test_what_happens_to_names_is_synced

removal of a failed slot not synced: S7 a failed write stores nothing
    - if "/" in name:
    -     self._sync_directory(os.path.dirname(path))
  processes::test_what_happens_to_names_is_synced

folder whose name could not be synced kept: S1 what was stored survives a cut
    - os.rmdir(path)  # else the next try would find it, and take its name for durable
  processes::test_the_names_of_new_directories_are_synced

rest of a longer slot left behind: S6 nothing but damage is counted
    - os.ftruncate(fd, len(data))
  slots::test_a_shorter_record_leaves_nothing_of_a_longer_one

half a slot taken for written: S1 what was stored survives
    - if os.pwrite(fd, data, 0) < len(data):
    + if os.pwrite(fd, data, 0) < 0:
  threads::test_a_slot_that_the_disk_takes_a_part_of_is_not_stored

half a line taken for written: S1 what was stored survives
    - while n < len(data):  # a disk that is almost full takes a part, and reports with the rest
    + while False:  # a disk that is almost full takes a part, and reports with the rest
  threads::test_a_disk_that_takes_a_few_bytes_at_a_time_gets_all_of_them

no lock on the directory: S12 one writer at a time
    - fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    + pass
  log::test_a_second_owner_is_refused_and_a_later_one_is_not

late thread may still write: S12 one writer at a time
    - if self._lock is None:  # a late thread: another instance may be the owner by now
    + if False:  # a late thread: another instance may be the owner by now
  threads::test_after_close_a_late_thread_cannot_write

forked child keeps the lock: S12 one writer at a time
    - directory.close()
      directory.path = None
  processes::test_a_child_that_lives_on_does_not_keep_the_lock

forked child may write: S12 one writer at a time
    - if not self.path:
    + if False:
          raise OSError(16, "this log was opened before a fork; open one in each process")
  processes::test_a_forked_child_cannot_touch_its_parents_log

group told before its commit: S1 durable when add_request returns
    - last = self._log.append([payload for entry in group for payload in entry.payloads])
    - for entry in reversed(group):
    -     entry.result = last
    -     last -= len(entry.payloads)
    + payloads = [payload for entry in group for payload in entry.payloads]
    + last = self._log.stored + len(payloads)
    + for entry in reversed(group):
    +     entry.result = last
    +     last -= len(entry.payloads)
    + self._wake(group)
    + self._log.append(payloads)
  threads::test_a_failed_commit_fails_for_all_who_shared_it_and_for_nobody_else

group of any length: D6 a group fits into a segment
    - if group and size > self._log.max_record:
    -     break
  threads::test_a_group_is_not_longer_than_the_longest_record

numbers of a group that of its last record: S3 a number names one record
    - last -= len(entry.payloads)
  threads::test_eight_threads_lose_nothing_and_share_no_number

==== ports/micropython.py

cursor and slots neither flushed nor closed: S1, S4
    - with self.open(name, "wb") as f:
    -     f.write(data)
    -     f.flush()
    + self.open(name, "wb").write(data)
  cuts[ack-littlefs-append]

a callback gets a lock that is held: S12 no number twice
    - if not self.acquire():
    + if not self.acquire() and False:
  board[test_log.py-test_a_callback_in_the_middle_of_an_append_takes_no_number_twice-lfs2]

no lock on the directory: S12 one writer at a time
    - _in_use.add(self.path)
  board[test_log.py-test_a_second_owner_is_refused_and_a_later_one_is_not-lfs2]
"""

# `old` and `new` are lists of lines without their common margin.
Mutation = collections.namedtuple("Mutation", "name path breaks old new tests")
# `verdict`: "caught", "survived" or what else happened; `by`: the test, or why.
Outcome = collections.namedtuple("Outcome", "verdict by")


def table():
    """Return every Mutation, with the full ids of its tests."""
    found = []
    file = ""
    for block in TABLE.strip().split("\n\n"):
        head, *lines = block.splitlines()
        if head.startswith("==== "):
            file = head[5:]
            continue
        name, _, breaks = head.rpartition(": ")
        change = [line[4:] for line in lines if line.startswith("    ")]
        tests = [line.strip() for line in lines if not line.startswith("    ")]
        found.append(
            Mutation(
                f"{Path(file).stem}: {name}",
                f"lib/postcache/{file}",
                breaks,
                [line[2:] for line in change if line[0] != "+"],
                [line[2:] for line in change if line[0] != "-"],
                [re.sub(r"^\w+", lambda match: FILES[match[0]], test) for test in tests],
            )
        )
    return found


def mutated(mutation, folder):
    """Return the source of the mutation's file below `folder`, mutated. Raises ValueError."""
    lines = (folder / mutation.path).read_text(encoding="utf-8").split("\n")
    old = mutation.old
    places = [
        i
        for i, line in enumerate(lines)
        if line.strip() == old[0].strip()
        and textwrap.dedent("\n".join(lines[i : i + len(old)])) == "\n".join(old)
    ]
    if len(places) != 1:
        raise ValueError(
            f"{mutation.name}: this is {len(places)} times in {mutation.path}, and must be there "
            "once; bring the table in tools/mutate.py up to the code:\n" + "\n".join(old)
        )
    at = places[0]
    margin = lines[at][: len(lines[at]) - len(old[0])]
    lines[at : at + len(old)] = [margin + line for line in mutation.new]
    text = "\n".join(lines)
    try:
        compile(text, mutation.path, "exec")
    except SyntaxError as error:
        raise ValueError(f"{mutation.name}: what it makes is no Python: {error}") from None
    return text


# -- running tests --------------------------------------------------------------------------------


def run(folder, tests, *options):
    """
    Run pytest on the ids `tests` in the project below `folder`.

    Returns its exit status (None: it took too long), {test id: None or what it failed with} and
    what it printed.
    """
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    process = subprocess.Popen(
        [*command, f"--junit-xml={report}", *tests],
        cwd=folder,
        # No .pyc: two versions of a file, of one size and one second, have the same one.
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # also what the tests have started
        return None, {}, process.communicate()[0]
    cases = {}
    if report.exists():
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            test = case.get("classname", "").replace(".", "/") + ".py::" + case.get("name", "")
            failure = case.find("failure")
            if failure is not None:
                # The message is cut short where it has many lines.
                message = failure.get("message", "").partition("\n")[0]
                cases[test] = f"{message}\n{failure.text}"
            elif case.find("error") is not None:
                cases[test] = "error"
            elif case.find("skipped") is None:
                cases[test] = None
    return process.returncode, cases, output


def is_assertion(failure):
    """Say whether a test failed because what it asserts does not hold, and for nothing else."""
    if re.search(r"\b(Name|UnboundLocal|Import|ModuleNotFound|Syntax)Error\b", failure):
        return False  # the mutation itself is wrong
    # A test that ran in a process of its own, under MicroPython, has told what ended it.
    told = re.search(r"^E +Traceback \((?:.*\n)+?E +(\w+(?:Error|Exception)\b)", failure, re.M)
    what = told[1] if told else failure
    # An OSError: what must not raise has raised.
    return bool(
        re.match(r"assert |AssertionError|Failed: |OSError|\w+(Directory|Found)Error", what)
    )


def judge(mutation, folder):
    """Apply the mutation in the copy `folder`, run its tests there; return the Outcome."""
    path = folder / mutation.path
    original = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutation, folder), encoding="utf-8")
    try:
        status, cases, output = run(folder, mutation.tests, "-x")
    finally:
        path.write_text(original, encoding="utf-8")
    if status == 0:
        return Outcome("survived", "no test fails")
    if status is None:
        return Outcome("no assertion", f"longer than {TIMEOUT} s")
    for test, failure in cases.items():
        if failure:
            verdict = "caught" if is_assertion(failure) else "no assertion"
            return Outcome(verdict, short(test) if verdict == "caught" else failure[:500])
    return Outcome("no assertion", output[-500:])


def exists(test):
    """Say whether there is a test of this id: pytest would run none if one is missing."""
    path, _, name = test.partition("::")
    if test.startswith(FILES["board"]):
        file, name, _ = name.partition("[")[2].split("-")
        path = f"host_tests/core/{file}"
    source = (PROJECT / path).read_text(encoding="utf-8")
    return re.search(rf"^def {name.partition('[')[0]}\(", source, re.M) is not None


def short(test):
    """The id of a test without what all have in common."""
    return test.rpartition("/")[2].replace(".py::", "::", 1)


# -- the command line -----------------------------------------------------------------------------


def find_micropython():
    """Let the tests find MicroPython; return True if there is one."""
    try:
        os.environ["MICROPYTHON"] = get_runtimes.find("micropython")[0]
    except get_runtimes.Unavailable as error:
        if os.environ.get("CI") or os.environ.get("POSTCACHE_REQUIRE_ALL"):
            raise
        print(f"mutate: goes on without MicroPython: {error}", file=sys.stderr)
        return False
    return True


def unmutated(folders, tests):
    """Run all `tests` in the copies `folders`, nothing changed; return {id: why it failed}."""
    parts = [part for part in (tests[i :: len(folders)] for i in range(len(folders))) if part]
    failed = {}
    with concurrent.futures.ThreadPoolExecutor(len(folders)) as pool:
        for part, (status, cases, output) in zip(parts, pool.map(run, folders, parts)):
            if status not in (0, 1):
                failed.update(
                    dict.fromkeys(part, f"pytest's status is {status}\n{output[-2000:]}")
                )
                continue
            for test in part:
                # With parameters one test has several cases.
                whys = [why for case, why in cases.items() if case.partition("[")[0] == test]
                whys = list(filter(None, whys or [cases.get(test, "was skipped")]))
                if whys:
                    failed[test] = whys[0]
    return failed


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Break one promise at a time; tests must notice.")
    parser.add_argument("name", nargs="*", help="only mutations whose name begins so")
    parser.add_argument("--list", action="store_true", help="show the names, run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time; default: 2")
    options = parser.parse_args(arguments)
    wanted = [
        mutation
        for mutation in table()
        if not options.name or mutation.name.startswith(tuple(options.name))
    ]
    try:
        for mutation in wanted:
            mutated(mutation, PROJECT)
        if not wanted:
            raise ValueError("no mutation has such a name; --list shows them.")
    except ValueError as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 2
    width = max(len(mutation.name) for mutation in wanted)
    if options.list:
        for mutation in wanted:
            print(f"{mutation.name:{width}}  {mutation.breaks}")
        return 0
    try:
        micropython = find_micropython()
    except get_runtimes.Unavailable as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mutate-") as place:
        folders = [Path(place, str(i), "project") for i in range(max(1, options.jobs))]
        for folder in folders:
            shutil.copytree(PROJECT, folder, ignore=LEFT_OUT)
        return _all(wanted, folders, micropython, width)


def _all(wanted, folders, micropython, width):
    begun = time.monotonic()
    board = FILES["board"]
    if not micropython:
        out = [m for m in wanted if any(test.startswith(board) for test in m.tests)]
        wanted = [m for m in wanted if m not in out]
        if out:
            print(f"mutate: {len(out)} left out that only MicroPython shows.", file=sys.stderr)
    tests = sorted({test for mutation in wanted for test in mutation.tests})
    failed = {test: "there is no such test" for test in tests if not exists(test)}
    failed.update(unmutated(folders, [test for test in tests if test not in failed]))
    for test, why in failed.items():
        print(f"mutate: before anything is changed: {test}: {why[:2000]}", file=sys.stderr)
    free = queue.Queue()
    for folder in folders:
        free.put(folder)

    def one(mutation):
        for test in mutation.tests:
            if test in failed:
                return Outcome("not judged", f"{short(test)} {failed[test].splitlines()[0]}")
        folder = free.get()
        try:
            return judge(mutation, folder)
        finally:
            free.put(folder)

    bad = 0
    with concurrent.futures.ThreadPoolExecutor(len(folders)) as pool:
        for mutation, outcome in zip(wanted, pool.map(one, wanted)):
            caught = outcome.verdict == "caught"
            bad += not caught
            print(
                f"{mutation.name:{width}}  {'' if caught else outcome.verdict.upper() + ': '}"
                f"{outcome.by}",
                flush=True,
            )
    seconds = time.monotonic() - begun
    print(f"\n{len(wanted) - bad} of {len(wanted)} mutations caught, {seconds:.0f} s")
    if bad:
        print(f"mutate: {bad} were not caught.", file=sys.stderr)
    return 1 if bad or failed else 0


if __name__ == "__main__":
    sys.exit(main())
