"""The journal's files: whole lines, each once, however the bytes arrive and whatever becomes of the files."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import tracemalloc
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.agent import inside
from farm.agent.journal import Expected, Journal, Kind, Line, Position, Standing, checkpoint, fact, fold, read
from farm.agent.journal.reader import LONGEST_LINE
from tests.agent.real_lines import (
    AUTHORISED,
    DAY,
    INVALID,
    LAUNCHED,
    LOGIN,
    NEXT_DAY,
    REAL,
    SCANNING,
    STARTED,
    SYNCHRONISED,
    encoded,
    line,
)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def texts_of(folder: Path, position: Position | None = None) -> list[str]:
    """Everything that is finished after ``position``."""
    position = position or Position()
    found: list[str] = []
    for _ in range(10_000):
        reading = read(folder, position)
        assert not reading.trouble
        found += [each.text for each in reading.lines]
        position = reading.position
        if not reading.more:
            return found
    raise AssertionError("the reader does not come to an end")


class TestReading:
    def test_no_folder_yet_is_no_lines_yet(self, tmp_path: Path):
        reading = read(tmp_path / "logs", Position())
        assert (reading.lines, reading.position, reading.more) == ((), Position(), False)

    def test_a_line_that_is_not_finished_is_held_back(self, logs: Path):
        whole = encoded(INVALID)
        (logs / f"{DAY}.log").write_bytes(whole[:-2])
        assert texts_of(logs) == []
        (logs / f"{DAY}.log").write_bytes(whole)
        assert texts_of(logs) == [line(INVALID).text]

    def test_half_a_character_is_held_back(self, logs: Path):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded(STARTED)[:-1])
        reading = read(logs, Position())
        assert reading.lines == ()
        file.write_bytes(encoded(STARTED))
        assert texts_of(logs, reading.position) == [STARTED]

    def test_characters_whose_bytes_look_like_a_line_break_do_not_end_a_line(self, logs: Path):
        tricky = "GL\t0\t18:38:55.562\tTerminal\t\u0a00\u0100\u000b\u2028\u0085\U0001f600 end"
        (logs / f"{DAY}.log").write_bytes(encoded(tricky, INVALID))
        assert texts_of(logs) == [tricky, line(INVALID).text]

    def test_finished_lines_are_not_held_back_by_what_follows(self, logs: Path):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded(STARTED) + "GL\t\u0a00\u0100".encode("utf-16-le"))
        assert texts_of(logs) == [STARTED]

    def test_the_checkpoint_is_the_end_and_only_later_lines_count(self, logs: Path):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded(INVALID))
        before = checkpoint(logs)
        with file.open("ab") as more:
            more.write(encoded(STARTED, bom=False))
        assert texts_of(logs, before) == [STARTED]

    @pytest.mark.parametrize("missing", [2, 30, 31], ids=["newline", "words", "half a character"])
    def test_what_a_terminal_that_died_left_unfinished_does_not_spoil_the_next_ones_lines(
        self, logs: Path, missing: int
    ):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded(INVALID)[:-missing])
        before = checkpoint(logs)
        with file.open("ab") as more:
            more.write(encoded(STARTED, LAUNCHED, bom=False))
        assert texts_of(logs, before) == [STARTED, LAUNCHED]

    def test_the_checkpoint_of_a_huge_journal_reads_none_of_it(self, logs: Path):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded(STARTED))
        os.truncate(file, 1 << 30)
        tracemalloc.start()
        try:
            before = checkpoint(logs)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert before.offset == 1 << 30
        assert peak < 1 << 20

    def test_one_read_of_a_huge_journal_is_bounded_in_memory(self, logs: Path):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded(*[SCANNING] * 5000))
        os.truncate(file, 1 << 30)
        tracemalloc.start()
        try:
            reading = read(logs, Position())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert reading.more
        assert peak < 8 << 20

    def test_a_line_too_long_to_be_one_is_passed_over_and_its_end_is_not_taken_for_a_line(self, logs: Path):
        endless = "x" * LONGEST_LINE + line(AUTHORISED["MetaQuotes-Demo"]).text
        (logs / f"{DAY}.log").write_bytes(encoded(STARTED, endless, INVALID))
        assert texts_of(logs) == [STARTED, line(INVALID).text]

    def test_after_a_line_too_long_the_next_one_is_whole_though_it_comes_in_parts(self, logs: Path):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded("x" * LONGEST_LINE)[:-4])
        within = read(logs, Position()).position
        assert within.skipping
        whole = encoded("x" * LONGEST_LINE, INVALID)
        file.write_bytes(whole[:-60])
        after = read(logs, within)
        assert after.lines == ()
        file.write_bytes(whole)
        assert texts_of(logs, after.position) == [line(INVALID).text]

    def test_a_journal_that_is_shared_with_nobody_now_is_read_next_time(
        self, logs: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (logs / f"{DAY}.log").write_bytes(encoded(STARTED))
        before = Position(file=f"{DAY}.log")
        with monkeypatch.context() as windows:
            windows.setattr(inside.Side, "read", _denied)
            reading = read(logs, before)
        assert (reading.lines, reading.position, reading.trouble) == ((), before, "Permission denied")
        assert texts_of(logs, reading.position) == [STARTED]

    def test_a_link_or_a_pipe_among_the_journals_is_not_opened(self, logs: Path, tmp_path: Path):
        (tmp_path / "elsewhere").write_bytes(encoded(INVALID))
        (logs / f"{DAY}.log").symlink_to(tmp_path / "elsewhere")
        os.mkfifo(logs / f"{NEXT_DAY}.log")
        assert texts_of(logs) == []


def _denied(*args: object, **named: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


class TestFilesThatChange:
    def test_after_midnight_the_next_file_is_read_as_soon_as_it_is_there(self, logs: Path):
        (logs / f"{DAY}.log").write_bytes(encoded(STARTED))
        journal = Journal(logs, Expected(login=LOGIN, server="MetaQuotes-Demo"), position=Position())
        assert [each.kind for each in journal.poll()] == [Kind.STARTED]
        assert journal.poll() == []
        (logs / f"{NEXT_DAY}.log").write_bytes(encoded(INVALID))
        assert [each.kind for each in journal.poll()] == [Kind.REFUSED]

    def test_lines_added_to_the_old_file_before_the_new_one_came_are_not_lost(self, logs: Path):
        old = logs / f"{DAY}.log"
        old.write_bytes(encoded(STARTED))
        journal = Journal(logs, Expected(login=LOGIN, server="MetaQuotes-Demo"), position=Position())
        journal.poll()
        with old.open("ab") as more:
            more.write(encoded(AUTHORISED["MetaQuotes-Demo"], bom=False))
        (logs / f"{NEXT_DAY}.log").write_bytes(encoded(SYNCHRONISED))
        assert [each.kind for each in journal.poll()] == [Kind.AUTHORISED, Kind.SYNCHRONISED]

    def test_an_old_file_is_read_to_its_end_in_however_many_turns(self, logs: Path):
        (logs / f"{DAY}.log").write_bytes(encoded(*[SCANNING] * 5000, STARTED))
        (logs / f"{NEXT_DAY}.log").write_bytes(encoded(INVALID))
        assert texts_of(logs)[-2:] == [STARTED, line(INVALID).text]

    def test_a_fact_bears_the_day_of_its_file(self, logs: Path):
        (logs / f"{NEXT_DAY}.log").write_bytes(encoded(INVALID))
        (found,) = Journal(logs, Expected(login=LOGIN, server="MetaQuotes-Demo"), position=Position()).poll()
        assert found.at == datetime(2023, 4, 28, 18, 52, 36, 729000).timestamp()

    def test_a_file_cut_short_is_read_from_its_beginning(self, logs: Path):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded(STARTED, SCANNING, SCANNING))
        end = checkpoint(logs)
        file.write_bytes(encoded(INVALID))
        assert texts_of(logs, end) == [line(INVALID).text]

    def test_a_file_replaced_by_a_longer_one_is_read_from_its_beginning(self, logs: Path):
        file = logs / f"{DAY}.log"
        file.write_bytes(encoded(STARTED))
        end = checkpoint(logs)
        file.rename(logs / f"{DAY}.log.1")
        file.write_bytes(encoded(INVALID, SCANNING, SCANNING))
        assert texts_of(logs, end) == [line(text).text for text in (INVALID, SCANNING, SCANNING)]

    def test_a_file_that_was_pruned_leads_to_the_next(self, logs: Path):
        (logs / f"{DAY}.log").write_bytes(encoded(STARTED))
        end = checkpoint(logs)
        (logs / f"{DAY}.log").unlink()
        assert texts_of(logs, end) == []
        (logs / f"{NEXT_DAY}.log").write_bytes(encoded(INVALID))
        assert texts_of(logs, end) == [line(INVALID).text]

    def test_a_journal_of_a_day_to_come_does_not_hide_todays(self, logs: Path):
        """The clock was ahead, and was set right."""
        (logs / "29991231.log").write_bytes(encoded(STARTED))
        end = checkpoint(logs)
        assert texts_of(logs, end) == []
        (logs / f"{DAY}.log").write_bytes(encoded(INVALID))
        assert texts_of(logs, end) == [line(INVALID).text]

    def test_a_clock_set_back_while_a_journal_is_followed_leads_to_the_one_that_is_written(self, logs: Path):
        followed = Position(file="29991231.log", offset=10, head="x")
        (logs / "29991231.log").write_bytes(encoded(STARTED))
        (logs / f"{DAY}.log").write_bytes(encoded(INVALID))
        assert texts_of(logs, followed) == [line(INVALID).text]

    def test_other_files_in_the_folder_are_no_journals(self, logs: Path):
        for name in ("Crash", f"{DAY}.log.1", "readme.log", "2023042.log"):
            (logs / name).write_bytes(encoded(INVALID))
        assert texts_of(logs) == []


class TestPosition:
    def test_a_restarted_agent_goes_on_where_the_last_stopped(self, logs: Path):
        (logs / f"{DAY}.log").write_bytes(encoded(STARTED)[:-20])
        stopped = read(logs, Position()).position
        resumed = Position.from_dict(json.loads(json.dumps(stopped.as_dict())))
        (logs / f"{DAY}.log").write_bytes(encoded(STARTED, INVALID))
        assert resumed == stopped
        assert texts_of(logs, resumed) == [STARTED, line(INVALID).text]

    @pytest.mark.parametrize(
        "change",
        [
            {"file": "../../etc/passwd"},
            {"offset": -2},
            {"offset": True},
            {"head": None},
            {"skipping": 1},
            {"more": 1},
        ],
    )
    def test_what_is_no_position_is_refused(self, change: dict):
        with pytest.raises(ValueError, match="not a position"):
            Position.from_dict({**Position(file=f"{DAY}.log").as_dict(), **change})

    def test_a_journal_followed_without_position_begins_at_its_end(self, logs: Path):
        (logs / f"{DAY}.log").write_bytes(encoded(INVALID))
        assert Journal(logs, Expected(login=LOGIN, server="MetaQuotes-Demo")).poll() == []

    def test_a_flood_is_read_in_turns(self, logs: Path):
        (logs / f"{DAY}.log").write_bytes(encoded(*[SCANNING] * 10_000, INVALID))
        journal = Journal(logs, Expected(login=LOGIN, server="MetaQuotes-Demo"), position=Position())
        seen = journal.poll(most_bytes=1)
        assert journal.behind
        while journal.behind:
            seen += journal.poll(most_bytes=1)
        assert [each.kind for each in seen] == [Kind.NETWORK] * 10_000 + [Kind.REFUSED]


# --- however the bytes arrive -----------------------------------------------------------------------------------------

CHUNKED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CONTENT = st.lists(
    st.one_of(
        st.sampled_from([line(text).text for text in REAL]).map(lambda text: f"{text}\r\n".encode("utf-16-le")),
        st.binary(max_size=80),
        st.sampled_from([b"\n\x00", b"\x00\n", b"\xff\xfe", b"\x3d\xd8", b"\r\x00", b"\n"]),
        st.just(b"x\x00" * (LONGEST_LINE // 2)),
    ),
    max_size=12,
).map(b"".join)
CUTS = st.lists(st.integers(min_value=0, max_value=2**18), max_size=8)


def followed(days: list[tuple[str, bytes]], cuts: list[int], *, limit: int) -> list[Line]:
    """What is read while the bytes of ``days`` arrive one after the other, cut anywhere."""
    found: list[Line] = []
    position = Position()
    with tempfile.TemporaryDirectory() as folder:
        for day, content in days:
            ends = [*sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
            for start, end in zip([0, *ends], ends, strict=False):
                with (Path(folder) / f"{day}.log").open("ab") as file:
                    file.write(content[start:end])
                for _ in range(10_000):
                    reading = read(Path(folder), position, limit=limit)
                    found += reading.lines
                    position = Position.from_dict(json.loads(json.dumps(reading.position.as_dict())))
                    if not reading.more:
                        break
                else:
                    raise AssertionError("the reader does not come to an end")
    return found


@CHUNKED
@given(content=CONTENT, cuts=CUTS, limit=st.integers(min_value=1, max_value=2**18))
def test_any_chunking_of_the_same_bytes_gives_the_same_lines(content: bytes, cuts: list[int], limit: int):
    assert followed([(DAY, content)], cuts, limit=limit) == followed([(DAY, content)], [], limit=2**30)


@CHUNKED
@given(lines=st.lists(st.sampled_from(REAL), max_size=20), midnight=st.integers(0, 20), cuts=CUTS)
def test_midnight_may_fall_between_any_two_lines(lines: list[str], midnight: int, cuts: list[int]):
    days = [(DAY, encoded(*lines[:midnight])), (NEXT_DAY, encoded(*lines[midnight:]))]
    expected = [line(text, day=DAY if nth < midnight else NEXT_DAY) for nth, text in enumerate(lines)]
    assert followed(days, cuts, limit=1) == expected


@given(content=CONTENT)
@CHUNKED
def test_junk_never_raises_on_its_way_to_a_standing(content: bytes):
    now = Standing.begin(login=LOGIN)
    for each in followed([(DAY, content)], [], limit=2**18):
        if found := fact(each, Expected(login=LOGIN, server="MetaQuotes-Demo")):
            now = fold(now, found)
    assert Standing.from_dict(json.loads(json.dumps(now.as_dict()))) == now
