"""The keepsake: what a host refuses to unpack, what it never packs, and how it travels between portal and clone."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.agent import archive, cli, courier, errors, keeping, keepsake, manifest, orders, tree
from farm.agent.protocol import Outcome, Process, Reason
from tests.agent.house import House

GOOD = "MQL5/Files/notes.txt"
LINK, FOLDER, FIFO = stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFIFO | 0o644


def zipped(*entries: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for name, content in entries:
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, mode << 16
            made.writestr(entry, content, compress_type=how)
    return target.getvalue()


def with_name(name: bytes) -> bytes:
    """An archive with exactly this name, which ``zipfile`` itself would not write."""
    assert len(name) <= len(GOOD)
    return zipped((GOOD, b"x")).replace(GOOD.encode(), name.ljust(len(GOOD), b"t"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    place = tmp_path / "Users" / "user_9"
    (place / "MQL5" / "Files").mkdir(parents=True)
    (place / "terminal64.exe").write_bytes(b"MZ")
    return place


def put(clone: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tree_of(root: Path) -> dict[str, bytes]:
    return {entry.path: (root / entry.path).read_bytes() for entry in tree.walk(root) if (root / entry.path).is_file()}


def refused(data: bytes, clone: Path) -> str:
    """What the refusal says; nothing may have been written, here or anywhere beside."""
    root = clone.parents[1]
    before = tree_of(root)
    with pytest.raises(errors.BadKeepsake) as caught:
        keepsake.unpack(data, clone)
    assert tree_of(root) == before
    return caught.value.detail


# --- what is never unpacked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../user_8/MQL5/Files/a.txt",
        "MQL5/Files/../../../../x.txt",
        "MQL5/Files/./a.txt",
        "MQL5/Files//a.txt",
        "/etc/passwd.txt",
        "//host/share/a.txt",
        "C:/Windows/a.txt",
        "C:a.txt",
        "MQL5/Files/C:/a.txt",
        "MQL5/Files/a.txt:stream.txt",
        "MQL5\\Files\\a.txt",
        "MQL5/Files/..\\..\\a.txt",
        "MQL5/Files/con.txt",
        "MQL5/Files/COM1/a.txt",
        "MQL5/Files/nul .txt",
        "MQL5/Files/lpt¹.txt",
        "MQL5/Files/a.exe.",
        "MQL5/Files/a.txt ",
        "MQL5/Files/a./b.txt",
        "MQL5/Files/ /b.txt",
        "MQL5/Files/a\nb.txt",
        "MQL5/Files/\u202etxt.csv",
        "MQL5/Files/a*.txt",
        "MQL5/Files/" + "a" * 250 + ".txt",
    ],
)
def test_a_name_that_leaves_the_clone_or_that_windows_reads_otherwise_is_refused(clone, name):
    refused(zipped((GOOD, b"x"), (name, b"x")), clone)


@pytest.mark.parametrize("name", [b"MQL5/Files/a.txt\0exe", b"MQL5/Files/a.e\0.txt"])
def test_a_name_with_a_nul_is_refused(clone, name):
    refused(with_name(name), clone)


@pytest.mark.parametrize(
    "name",
    [
        "Config/common.ini",
        "Config/accounts.dat",
        "terminal64.ini",
        "Bases/x.dat",
        "MQL5/Libraries/a.mq5",
        "mql5/files/a.txt",
        "MQL5/Files",
        "MQL5/x.txt",
    ],
)
def test_what_is_outside_the_customers_folders_is_refused(clone, name):
    assert "outside" in refused(zipped((name, b"x")), clone)


@pytest.mark.parametrize("bridge", ["bitten", "BITTEN", "Bitten"])
def test_the_bridge_is_never_written(clone, bridge):
    assert "bridge" in refused(zipped((f"MQL5/Files/{bridge}/commands/a.json", b"{}")), clone)


@pytest.mark.parametrize(
    "name",
    ["a.ex5", "a.EXE", "a.dll", "a.bat", "a.cmd", "a.ps1", "a.lnk", "a.scr", "a.com", "a.js", "a.txt.exe", "a", "txt"],
)
def test_what_could_run_or_is_of_no_known_kind_is_refused(clone, name):
    assert "kind" in refused(zipped((f"MQL5/Experts/{name}", b"MZ")), clone)


@pytest.mark.parametrize("mode", [LINK, FOLDER, FIFO, stat.S_IFCHR | 0o644])
def test_an_entry_that_is_no_plain_file_is_refused(clone, mode):
    assert "plain" in refused(zipped((GOOD, b"/etc/passwd"), mode=mode), clone)


def test_a_reparse_point_is_refused(clone):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        entry = zipfile.ZipInfo(GOOD)
        entry.create_system, entry.external_attr = 0, 0x400
        made.writestr(entry, b"x")
    refused(target.getvalue(), clone)


@pytest.mark.parametrize(
    "names",
    [
        ("MQL5/Files/a.txt", "MQL5/Files/A.TXT"),
        ("MQL5/Files/straße.txt", "MQL5/Files/STRASSE.txt"),
        ("MQL5/Files/caf\u00e9.txt", "MQL5/Files/cafe\u0301.txt"),
        ("MQL5/Files/a.txt", "MQL5/Files/a.txt/b.txt"),
        ("MQL5/Files/a.txt/b.txt", "MQL5/Files/A.txt"),
    ],
)
def test_two_names_for_one_file_are_refused(clone, names):
    assert "twice" in refused(zipped(*((name, b"x") for name in names)), clone)


def test_too_many_files_are_refused(clone):
    many = zipped(*((f"MQL5/Files/{n}.txt", b"") for n in range(archive.MOST_ENTRIES + 1)))
    assert "2001" in refused(many, clone)


def test_an_archive_that_is_too_big_is_refused_unopened(clone):
    assert "too big" in refused(zipped((GOOD, os.urandom(archive.MOST_BYTES)), how=zipfile.ZIP_STORED), clone)


def test_a_bomb_is_refused_by_what_it_says(clone):
    bomb = zipped(*((f"MQL5/Files/{n}.txt", bytes(9 << 20)) for n in range(4)))
    assert len(bomb) < 1 << 20
    assert "unpacked" in refused(bomb, clone)


@pytest.mark.parametrize("said", [10, 0, (8 << 20) + 1, 0xFFFFFFFF])
def test_a_bomb_that_says_another_size_is_refused(clone, said):
    honest = zipped((GOOD, bytes(8 << 20)))
    place = honest.rindex(b"PK\x01\x02") + 24
    refused(honest[:place] + struct.pack("<L", said) + honest[place + 4 :], clone)


def test_what_was_changed_on_its_way_is_refused(clone):
    data = bytearray(zipped((GOOD, b"hello, hello, hello"), how=zipfile.ZIP_STORED))
    data[data.index(b"hello")] ^= 1
    refused(bytes(data), clone)


def test_what_is_encrypted_or_packed_in_a_rare_way_is_refused(clone):
    refused(zipped((GOOD, b"x"), how=zipfile.ZIP_LZMA), clone)
    data = bytearray(zipped((GOOD, b"x")))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    refused(bytes(data), clone)


def test_a_link_or_a_folder_that_stands_in_the_clone_is_not_written_through(clone, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    (clone / "MQL5" / "Presets").symlink_to(away)
    refused(zipped((GOOD, b"x"), ("MQL5/Presets/a.set", b"x")), clone)
    (clone / "MQL5" / "Files" / "a.txt").symlink_to(away / "a.txt")
    refused(zipped(("MQL5/Files/a.txt", b"x")), clone)
    (clone / "MQL5" / "Files" / "b.txt").mkdir()
    refused(zipped(("MQL5/Files/b.txt", b"x")), clone)
    assert list(away.iterdir()) == []


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_with_the_one_typed_error(data):
    for given_data in (data, b"PK\x05\x06" + data, zipped((GOOD, data))[:-1]):
        try:
            archive.check(given_data)
        except errors.BadKeepsake:
            continue


@given(st.data())
@settings(max_examples=300)
def test_a_keepsake_with_any_bytes_changed_is_read_or_refused_with_the_one_typed_error(data):
    whole = bytearray(archive.packed({GOOD: b"hello" * 20, "Profiles/a.chr": b"<chart>"}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        files = archive.check(bytes(whole))
    except errors.BadKeepsake:
        return
    assert not any(map(archive.fault_of, files))


# --- what is unpacked -------------------------------------------------------------------------------------------------


def test_a_file_that_clones_share_is_replaced_and_never_written_into(clone, tmp_path):
    shared = tmp_path / "master.mqh"
    shared.write_bytes(b"the master's")
    place = clone / "MQL5" / "Include" / "a.mqh"
    place.parent.mkdir()
    os.link(shared, place)
    assert keepsake.unpack(zipped(("MQL5/Include/a.mqh", b"the customer's")), clone) == 1
    assert place.read_bytes() == b"the customer's"
    assert shared.read_bytes() == b"the master's"


def test_what_is_unpacked_cannot_be_executed(clone):
    keepsake.unpack(zipped((GOOD, b"x"), mode=stat.S_IFREG | 0o4777), clone)
    assert stat.S_IMODE((clone / GOOD).stat().st_mode) & 0o7111 == 0


def test_it_may_be_repeated_and_clears_away_what_a_crash_left(clone):
    (clone / "MQL5" / "Files" / ".tmp-keepsake").write_bytes(b"half")
    for _ in range(2):
        keepsake.unpack(zipped((GOOD, b"x")), clone)
    assert [path.name for path in (clone / "MQL5" / "Files").iterdir()] == ["notes.txt"]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12)
PATHS = st.builds(
    lambda area, parts, ending: "/".join([area, *parts]) + ending,
    st.sampled_from(archive.AREAS),
    st.lists(NAMES, min_size=1, max_size=3),
    st.sampled_from([".txt", ".set", ".chr", ".TPL", ".mq5", ".ex5", ""]),
)


@given(st.dictionaries(PATHS, st.binary(max_size=40), max_size=8))
def test_what_is_packed_is_unpacked_into_the_same_files(tmp_path_factory, files):
    names = archive.Names()
    kept = {path: content for path, content in files.items() if not names.add(path)}
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    put(one, kept)
    made = keepsake.pack(one)
    assert keepsake.unpack(made.data, other) == made.files == len(kept)
    assert tree_of(other) == kept
    assert keepsake.pack(other).data == made.data


# --- what is packed ---------------------------------------------------------------------------------------------------


def packed_names(made: keepsake.Packed) -> list[str]:
    return sorted(archive.check(made.data))


MADE = {
    "Profiles/Charts/Mine/chart01.chr": b"<chart>",
    "MQL5/Profiles/Templates/Mine.tpl": b"tpl",
    "MQL5/Presets/mine.set": b"set",
    "MQL5/Files/notes.txt": b"notes",
    "MQL5/Experts/Mine/mine.mq5": b"void OnTick(){}",
}


def test_what_the_customer_made_is_packed_and_nothing_else(clone):
    put(clone, MADE)
    put(
        clone,
        {
            "Config/accounts.dat": b"secret",
            "MQL5/Files/bitten/heartbeat.json": b"{}",
            "MQL5/Experts/Mine/mine.ex5": b"EX5",
            "MQL5/Files/run.exe": b"MZ",
            "MQL5/Logs/20261122.log": b"log",
            "logs/20261122.log": b"log",
        },
    )
    made = keepsake.pack(clone)
    assert archive.check(made.data) == MADE
    assert made.left_out == ()


def test_what_the_master_has_is_left_to_it_unless_it_was_changed(clone):
    put(clone, MADE)
    known = manifest.current(clone, None)
    assert packed_names(keepsake.pack(clone, known)) == []
    put(clone, {GOOD: b"other"})  # as long as it was
    assert packed_names(keepsake.pack(clone, known)) == [GOOD]


def test_sources_of_a_master_that_has_changed_since_are_not_taken_for_the_customers(clone):
    put(clone, {"MQL5/Include/Math.mqh": b"new"})
    known = manifest.current(clone, None)
    put(clone, {"MQL5/Include/Math.mqh": b"old", "MQL5/Include/Mine.mqh": b"mine"})
    assert packed_names(keepsake.pack(clone, known, same_master=False)) == ["MQL5/Include/Mine.mqh"]


def test_links_are_not_followed(clone, tmp_path):
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a.txt").write_bytes(b"secret")
    (clone / "MQL5" / "Files" / "a.txt").symlink_to(tmp_path / "secret.txt")
    (clone / "MQL5" / "Files" / "deep").symlink_to(tmp_path / "secrets")
    (clone / "MQL5" / "Presets").symlink_to(tmp_path / "secrets")
    os.mkfifo(clone / "MQL5" / "Files" / "pipe.txt")
    assert packed_names(keepsake.pack(clone)) == []


def test_a_folder_that_becomes_a_link_while_files_are_read_is_not_followed(clone, tmp_path, monkeypatch):
    put(clone, {"MQL5/Files/deep/a.txt": b"mine"})
    put(tmp_path, {"secrets/a.txt": b"secret"})
    seen = list(keepsake._seen(clone))
    deep = clone / "MQL5" / "Files" / "deep"
    deep.rename(tmp_path / "away")
    deep.symlink_to(tmp_path / "secrets")
    monkeypatch.setattr(keepsake, "_seen", lambda clone: iter(seen))
    made = keepsake.pack(clone)
    assert made.left_out == ("MQL5/Files/deep/a.txt",)
    assert b"secret" not in b"".join(archive.check(made.data).values())


def test_files_that_go_away_or_grow_while_they_are_read_do_not_stop_it(clone, monkeypatch):
    put(clone, {"MQL5/Files/gone.txt": b"x", "MQL5/Files/grown.csv": b"1;2\n"})
    seen = list(keepsake._seen(clone))
    (clone / "MQL5/Files/gone.txt").unlink()
    put(clone, {"MQL5/Files/grown.csv": b"1;2\n3;4\n"})
    monkeypatch.setattr(keepsake, "_seen", lambda clone: iter(seen))
    made = keepsake.pack(clone)
    assert made.left_out == ("MQL5/Files/gone.txt",)
    assert archive.check(made.data)["MQL5/Files/grown.csv"] == b"1;2\n"


def test_what_is_too_big_is_left_out_biggest_own_files_first_and_named(clone):
    put(clone, MADE | {"MQL5/Files/big.bin": os.urandom(60_000), "MQL5/Files/bigger.bin": os.urandom(90_000)})
    made = keepsake.pack(clone, most_bytes=100_000)
    assert made.left_out == ("MQL5/Files/bigger.bin",)
    assert len(made.data) <= 100_000
    files = archive.check(made.data)
    assert set(files) == {*MADE, "MQL5/Files/big.bin", keepsake.LEFT_OUT}
    assert b"MQL5/Files/bigger.bin" in files[keepsake.LEFT_OUT]


def test_own_files_are_left_out_before_anything_that_the_terminal_needs(clone):
    put(clone, {"MQL5/Presets/big.set": os.urandom(60_000), "MQL5/Files/less.bin": os.urandom(50_000)})
    assert keepsake.pack(clone, most_bytes=100_000).left_out == ("MQL5/Files/less.bin",)


def test_what_was_left_out_once_is_not_named_for_ever(clone):
    put(clone, {keepsake.LEFT_OUT: b"old news"})
    assert packed_names(keepsake.pack(clone)) == []


def test_what_would_be_too_big_unpacked_is_left_out_though_it_packs_well(clone):
    put(clone, {GOOD: b"x"})
    with open(clone / "MQL5/Files/zeros.bin", "wb") as zeros:
        zeros.truncate(archive.MOST_UNPACKED)
    made = keepsake.pack(clone)
    assert made.left_out == ("MQL5/Files/zeros.bin",)
    assert GOOD in archive.check(made.data)


def test_a_clone_that_is_not_there_leaves_none(tmp_path):
    with pytest.raises(errors.CloneMissing):
        keepsake.pack(tmp_path / "nobody")


# --- on its way -------------------------------------------------------------------------------------------------------


class Portal(ThreadingHTTPServer):
    """The portal's side: tickets that are good once, and what came in with them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.came: list[bytes] = []
        self.stored = b""
        self.digest = ""
        self.failures = 0
        self.status = 500
        self.asked = 0

    def url(self, path: str = "keepsake/Ticket-Ticket-Ticket-Ticket/") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Answer(BaseHTTPRequestHandler):
    server: Portal

    def fails(self) -> bool:
        self.server.asked += 1
        if not self.server.failures:
            return False
        self.server.failures -= 1
        self.send_response(self.server.status)
        self.send_header("Location", self.server.url("elsewhere/"))
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def do_GET(self) -> None:
        if self.fails():
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.stored)))
        self.send_header("X-Keepsake-SHA256", self.server.digest or hashlib.sha256(self.server.stored).hexdigest())
        self.end_headers()
        self.wfile.write(self.server.stored)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.fails():
            return
        assert self.headers["X-Keepsake-SHA256"] == hashlib.sha256(data).hexdigest()
        self.server.came.append(data)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def portal() -> Iterator[Portal]:
    server = Portal()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "nonsense", "http://", "http://a b/"]
)
def test_nothing_is_fetched_or_brought_but_over_http(url):
    with pytest.raises(errors.KeepsakeTrouble):
        courier.download(url)
    with pytest.raises(errors.KeepsakeTrouble):
        courier.upload(url, b"x")


def test_a_redirect_is_not_followed(portal):
    portal.failures, portal.status, portal.stored = 1, 302, b"elsewhere"
    with pytest.raises(errors.KeepsakeTrouble, match="302"):
        courier.download(portal.url())
    assert portal.asked == 1


def test_what_is_too_big_or_was_changed_on_its_way_is_not_taken(portal):
    portal.stored = bytes(archive.MOST_BYTES + 1)
    with pytest.raises(errors.KeepsakeTrouble, match="too big"):
        courier.download(portal.url())
    portal.stored, portal.digest = b"PK", hashlib.sha256(b"other").hexdigest()
    with pytest.raises(errors.KeepsakeTrouble, match="changed"):
        courier.download(portal.url())


@pytest.mark.parametrize("status", [404, 500])
def test_the_ticket_is_in_no_error_and_no_log(portal, caplog, status):
    caplog.set_level(logging.DEBUG)
    portal.failures, portal.status = 2, status
    for ask in (lambda: courier.download(portal.url()), lambda: courier.upload(portal.url(), b"x")):
        with pytest.raises(errors.KeepsakeTrouble) as caught:
            ask()
        assert "Ticket" not in str(caught.value)
        assert caught.value.__suppress_context__
    assert "Ticket" not in caplog.text


# --- as orders --------------------------------------------------------------------------------------------------------


def test_a_clone_comes_with_its_keepsake(house: House, portal):
    portal.stored = archive.packed(MADE)
    house.done("clone", keepsake=portal.url())
    assert {name: (house.clone / name).read_bytes() for name in MADE} == MADE


def test_a_keepsake_that_cannot_be_fetched_is_tried_twice_and_costs_nobody_the_terminal(house: House, portal):
    portal.failures, portal.status = 2, 404
    report = house.obey("clone", keepsake=portal.url())
    assert report.outcome is Outcome.DONE
    assert report.detail == "without its keepsake: the portal answered 404"
    assert portal.asked == keeping.TRIES
    assert house.clone.is_dir()


def test_the_second_try_may_help(house: House, portal):
    portal.failures, portal.stored = 1, archive.packed(MADE)
    house.done("clone", keepsake=portal.url())
    assert (house.clone / GOOD).exists()


def test_a_hostile_keepsake_is_not_unpacked_and_costs_nobody_the_terminal(house: House, portal):
    portal.stored = zipped((GOOD, b"x"), ("../user_8/a.txt", b"x"))
    report = house.obey("clone", keepsake=portal.url())
    assert report.outcome is Outcome.DONE
    assert "without its keepsake" in report.detail
    assert not (house.clone / GOOD).exists()


def test_a_clone_that_was_done_before_gets_none_over_what_was_made_since(house: House, portal):
    house.done("clone")
    put(house.clone, {GOOD: b"made since"})
    portal.stored = archive.packed({GOOD: b"old"})
    house.done("clone", keepsake=portal.url())
    assert (house.clone / GOOD).read_bytes() == b"made since"
    assert portal.asked == 0


def test_destroy_brings_the_keepsake_to_the_portal_before_the_folder_goes(house: House, portal):
    house.done("clone")
    put(house.clone, MADE)
    house.done("destroy", keepsake=portal.url())
    assert [archive.check(data) for data in portal.came] == [MADE]
    assert not house.clone.exists()


def test_while_the_portal_does_not_take_it_the_folder_stays_and_the_next_order_does_it(house: House, portal):
    house.running()
    put(house.clone, MADE)
    portal.failures = 1
    report = house.obey("destroy", keepsake=portal.url())
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.KEEPSAKE)
    assert report.observed.process is Process.STOPPED
    assert house.clone.is_dir()
    house.done("destroy", keepsake=portal.url())
    assert archive.check(portal.came[0]).items() >= MADE.items()
    assert not house.clone.exists()


def test_in_the_end_the_portal_may_have_it_destroyed_without(house: House, portal):
    house.done("clone")
    portal.failures = 1
    assert house.obey("destroy", keepsake=portal.url()).reason is Reason.KEEPSAKE
    house.done("destroy")
    assert not house.clone.exists()


def test_destroy_repeated_after_it_was_done_brings_nothing_more(house: House, portal):
    house.done("clone")
    for _ in range(2):
        house.done("destroy", keepsake=portal.url())
    assert len(portal.came) == 1


def test_keep_brings_it_while_the_terminal_runs_and_changes_nothing(house: House, portal):
    pid = house.running().observed.pid
    put(house.clone, MADE)
    before = house.state()
    for _ in range(2):
        report = house.obey("keep", keepsake=portal.url(), generation=before.generation)
        assert (report.outcome, report.observed.pid) == (Outcome.DONE, pid)
    assert house.state() == before
    assert archive.check(portal.came[1]).items() >= MADE.items()


@pytest.mark.parametrize("off", [-1, 1])
def test_keep_of_another_generation_is_refused_and_not_remembered(house: House, portal, off):
    house.done("clone")
    report = house.obey("keep", keepsake=portal.url(), generation=house.state().generation + off)
    assert (report.outcome, report.reason) == (Outcome.REFUSED, Reason.STALE)
    assert portal.asked == 0
    assert house.state().verb == "clone"


def test_keep_of_an_older_epoch_is_refused_and_of_a_newer_one_is_done(house: House, portal):
    house.done("clone", epoch=2)
    about = {"keepsake": portal.url(), "generation": house.state().generation}
    assert house.obey("keep", epoch=1, **about).reason is Reason.STALE
    assert house.obey("keep", epoch=3, **about).outcome is Outcome.DONE
    assert house.state().epoch == 2


def test_keep_of_an_instance_that_is_not_known_is_refused(house: House, portal):
    assert house.obey("keep", keepsake=portal.url(), generation=0).reason is Reason.STALE
    assert not (house.root / "State" / "17.json").exists()


def test_keep_that_the_portal_does_not_take_fails_with_that_reason(house: House, portal):
    house.done("clone")
    portal.failures = 1
    report = house.obey("keep", keepsake=portal.url(), generation=house.state().generation)
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.KEEPSAKE)


def test_nobodys_stop_waits_for_an_upload(house: House, portal, monkeypatch):
    house.done("clone")
    held = []

    def upload(url: str, data: bytes) -> None:
        with house.context.held(17, seconds=0):
            held.append(True)

    monkeypatch.setattr(courier, "upload", upload)
    orders.obey(house.context, house.envelope(house.order("keep", keepsake="x", generation=house.state().generation)))
    assert held == [True]


def test_the_ticket_is_nowhere_on_the_disk(house: House, portal):
    portal.stored = archive.packed(MADE)
    house.done("clone", keepsake=portal.url())
    house.obey("keep", keepsake=portal.url(), generation=house.state().generation)
    house.obey("destroy", keepsake=portal.url())
    assert not [name for name, content in tree_of(house.root).items() if b"Ticket-" in content]


def test_an_operator_packs_one_into_a_file(house: House, monkeypatch, capsys):
    house.done("clone")
    put(house.clone, MADE)
    out = house.root.parent / "kept.zip"
    monkeypatch.setenv("FARM_ROOT", str(house.root))
    assert cli.main(["keepsake", "--folder", "user_9", "--out", str(out)]) == 0
    assert archive.check(out.read_bytes()) == MADE
    assert json.loads(capsys.readouterr().out)["files"] == len(MADE)


def test_the_archive_is_not_bigger_than_its_files_say():
    data = archive.packed({GOOD: zlib.compress(os.urandom(5000)), "Profiles/a.chr": b"x" * 5000})
    assert sum(archive.sizes(data).values()) + 22 == len(data)
