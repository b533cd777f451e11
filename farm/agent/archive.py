"""The archive that a keepsake travels in: which names it may hold, and a zip file read as what it is, hostile input.

One set of rules for both ways: what :func:`check` would refuse is never packed. All of an archive is checked, and
inflated within its limits in memory, before anything of it is given out.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from farm.agent import errors

MOST_BYTES = 5 << 20
"""Of the archive."""
MOST_UNPACKED = 32 << 20
"""Of all that is in it together."""
MOST_ENTRIES = 2000
LONGEST_PATH = 200
"""Windows takes 260 characters, those of the farm's folder and the clone's included."""

AREAS = (
    "Profiles",
    "MQL5/Profiles",
    "MQL5/Presets",
    "MQL5/Files",
    "MQL5/Experts",
    "MQL5/Indicators",
    "MQL5/Scripts",
    "MQL5/Include",
)
FILES = "MQL5/Files"
BRIDGE = "bitten"
"""Below FILES: ours, never the customer's."""

EXTENSIONS = frozenset(
    # Profiles, templates and presets; sources; what Expert Advisors write and people collect. No system runs any of
    # these, and the terminal runs none that was not compiled on the spot.
    (
        *("chr", "ini", "set", "tpl", "wnd", "mq5", "mqh", "bin", "bmp", "csv", "dat", "db", "gif", "jpeg", "jpg"),
        *("json", "log", "md", "png", "sqlite", "tsv", "txt", "wav", "xml", "yaml"),
    )
)

_FORBIDDEN = re.compile(r'[<>:"|?*\\]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\Z", re.IGNORECASE)
_FOLDER_OR_LINK = 0x10 | 0x400
"""DOS attributes of a folder and of a reparse point."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,  # NotImplementedError among them
    ValueError,
)


# --- names -----------------------------------------------------------------------------------------------------------


def fault_of(path: str) -> str:
    """Return what is wrong with ``path`` (relative, with ``/``) as a file of a keepsake; "" for nothing."""
    area = next((area for area in AREAS if path.startswith(f"{area}/")), None)
    if area is None:
        return "is outside the folders that a keepsake is of"
    if len(path) > LONGEST_PATH:
        return "is too long"
    parts = path.split("/")
    wrong = next(filter(None, map(_fault_of_part, parts)), "")
    if wrong:
        return wrong
    if area == FILES and parts[2].casefold() == BRIDGE:
        return "is the bridge's"
    if path.rpartition("/")[2].rpartition(".")[2].casefold() not in EXTENSIONS or "." not in parts[-1]:
        return "is of a kind that a keepsake never holds"
    return ""


def _fault_of_part(part: str) -> str:
    if part.strip(". ") == "" or part[-1] in ". " or part[0] == " ":
        return "has a part that leaves its folder, or that Windows reads as another name"
    if _FORBIDDEN.search(part) or not part.isprintable():
        return "has a character that no file name may have"
    if _RESERVED.match(part.partition(".")[0].rstrip()):
        return "is a device of Windows"
    return ""


def folded(path: str) -> str:
    """Return the one form of all spellings that a file system may take for the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


@dataclass
class Names:
    """The names of one archive, as they come together."""

    _files: set[str] = field(default_factory=set)
    _folders: set[str] = field(default_factory=set)

    def add(self, path: str) -> str:
        """Take ``path`` in and return "", or return why it cannot be one of them."""
        wrong = fault_of(path)
        if wrong:
            return wrong
        name = folded(path)
        parts = name.split("/")
        above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        if name in self._files or name in self._folders or above & self._files:
            return "is there twice"
        self._files.add(name)
        self._folders |= above
        return ""


# --- reading ---------------------------------------------------------------------------------------------------------


def check(data: bytes) -> dict[str, bytes]:
    """Return the files in ``data`` by name. Raise :class:`errors.BadKeepsake` for anything but a proper keepsake."""
    if len(data) > MOST_BYTES:
        raise errors.BadKeepsake("the keepsake is too big")
    if not data.startswith(b"PK"):
        raise errors.BadKeepsake("the keepsake is no archive")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries)
            return {entry.filename: _inflated(archive, entry) for entry in entries}
    except _UNREADABLE as error:
        raise errors.BadKeepsake(f"the keepsake cannot be read: {type(error).__name__}") from error


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_ENTRIES:
        raise errors.BadKeepsake(f"the keepsake holds {len(entries)} files")
    names, size = Names(), 0
    for entry in entries:
        wrong = _fault_of_entry(entry) or names.add(entry.filename)
        if wrong:
            raise errors.BadKeepsake(f"{entry.filename[:80]!r} in the keepsake {wrong}")
        size += entry.file_size
    if size > MOST_UNPACKED:
        raise errors.BadKeepsake("the keepsake is too big unpacked")


def _fault_of_entry(entry: zipfile.ZipInfo) -> str:
    if entry.orig_filename != entry.filename:  # cut at a NUL, or with another separator
        return "says two names at once"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or entry.external_attr & _FOLDER_OR_LINK:
        return "is no plain file"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in a way that a keepsake never is"
    return ""


def _inflated(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        content = file.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise errors.BadKeepsake("a file in the keepsake is not as long as it says")
    return content


# --- writing ---------------------------------------------------------------------------------------------------------


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return ``files`` as an archive, the same bytes for the same files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name], compress_type=zipfile.ZIP_DEFLATED, compresslevel=6)
    return target.getvalue()


def sizes(data: bytes) -> dict[str, int]:
    """Return how many bytes each file takes in an archive of ours, its two headers included."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {
            entry.filename: entry.compress_size + 76 + 2 * len(entry.filename.encode()) for entry in archive.infolist()
        }
