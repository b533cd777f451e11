"""The agent on Windows, as far as that can be seen elsewhere: it can be imported, and says what it says there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

# What an import there finds: another platform, modules that are not here, and a Python without those that are.
AS_WINDOWS = """
import ctypes, ntpath, os, sys, types
from celery import Celery
import psutil, nacl.signing, nacl.public, kombu, selectors, subprocess, multiprocessing, shutil, tempfile
import concurrent.futures, multiprocessing.connection, urllib.request, zipfile, logging.handlers, asyncio, unittest.mock
for name in ("fcntl", "pwd"):
    sys.modules[name] = None
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.LK_UNLCK, msvcrt.locking = 2, 0, lambda *_: None
sys.modules["msvcrt"] = msvcrt
winreg = types.ModuleType("winreg")
winreg.HKEY_LOCAL_MACHINE, winreg.OpenKey, winreg.QueryValueEx = 0, lambda *_: open(os.devnull), lambda *_: (41, 4)
sys.modules["winreg"] = winreg
import ssl
ssl.enum_certificates = lambda store: []
class Library:
    def __getattr__(self, name): return lambda *_: 0
ctypes.WinDLL = lambda *_, **__: Library()
ctypes.WINFUNCTYPE = ctypes.CFUNCTYPE
sys.platform = "win32"
for name in ("copy_file_range", "getloadavg", "geteuid", "chown", "fchown", "fchmod", "O_NOFOLLOW", "O_NONBLOCK",
             "O_DIRECTORY", "O_CLOEXEC"):
    if hasattr(os, name):
        delattr(os, name)
os.supports_dir_fd = set()
os.O_BINARY = 0
from pathlib import Path
farm = Path(sys.argv[1])
"""


def as_windows(code: str, farm: Path) -> str:
    """Run ``code`` in a Python that takes itself for Windows; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", AS_WINDOWS + code, str(farm)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode().strip()


def test_every_module_can_be_imported(tmp_path: Path):
    names = sorted(path.stem for path in (REPOSITORY / "farm" / "agent").glob("[a-z]*.py"))
    assert "worker" in names
    imports = "".join(f"import farm.agent.{name}\n" for name in names)
    assert as_windows(f"{imports}print('fine')", tmp_path) == "fine"


def test_settings_have_windows_defaults_and_the_command_is_split_its_way(tmp_path: Path):
    code = """
from farm.agent import settings
print(settings._command({}))
print(settings.words(settings.WINDOWS_COMMAND, folder=r"C:\\MT5_Farm\\Users\\user_9", ini=r"C:\\x y\\start.ini"))
"""
    command, words = as_windows(code, tmp_path).splitlines()
    assert command == r"{folder}\terminal64.exe /portable /config:{ini}"
    assert words == repr([r"C:\MT5_Farm\Users\user_9\terminal64.exe", "/portable", r"/config:C:\x y\start.ini"])


def test_a_clone_is_built_injected_cleared_and_purged_without_what_only_posix_has(tmp_path: Path):
    code = """
from farm.agent import bridge, build, inside, journal, keepsake, purge, startup, state, tree
from farm.agent import master as masters
master = masters.folder(farm)
(master / "MQL5" / "Presets").mkdir(parents=True)
(master / "terminal64.exe").write_bytes(b"MZ")
made = build.make_clone(farm, "user_9", pool=None, modes=build.Modes())
clone = farm / "Users" / "user_9"
bridge.write_bridge(clone, magic=1, port=2)
startup.write(startup.ini_path(clone), server="Demo", login=12345, password="Secret#12")
assert startup.ini_path(clone).read_bytes()[:2] == b"\\xff\\xfe"
startup.remove(startup.ini_path(clone))
bridge.clear_stale(clone)
assert journal.checkpoint(clone / "logs") == journal.Position()
(clone / "MQL5" / "Presets" / "mine.set").write_text("a=1")
assert keepsake.pack(clone).files == 1
keepsake.unpack(keepsake.pack(clone).data, clone)
state.save(farm / "State", state.State(instance=17, folder="user_9"))
assert state.load(farm / "State", 17) is not None
purge.discard(farm, clone)
assert purge.purge(farm, things=10**6, seconds=60).entries == 1
print(made.how)
"""
    assert as_windows(code, tmp_path) == "copy"


JOB = """
calls = []
class Kernel(Library):
    def __getattr__(self, name):
        def call(*arguments):
            calls.append((name, arguments))
            return {"CreateJobObjectW": 77, "GetCurrentProcess": -1}.get(name, done)
        return call
ctypes.WinDLL = lambda *_, **__: Kernel()
ctypes.get_last_error = lambda: 5
from farm.agent import windows
"""


def test_live_terminals_are_in_a_job_that_ends_with_the_watchdog(tmp_path: Path):
    code = """
done = 1
windows.take_children_along()
names = [name for name, _ in calls]
assert names == ["CreateJobObjectW", "SetInformationJobObject", "GetCurrentProcess", "AssignProcessToJobObject"], names
job, what, limits, size = calls[1][1]
assert (job, what, calls[3][1]) == (77, 9, (77, -1))
print(limits._obj.flags, size)
"""
    # What winnt.h says of a 64-bit system: JOBOBJECT_EXTENDED_LIMIT_INFORMATION has 144 bytes, and the flag's value.
    assert as_windows(JOB + code, tmp_path) == f"{0x2000} 144"


def test_a_watchdog_that_gets_no_job_says_so_and_does_not_begin(tmp_path: Path):
    code = """
done = 0
try:
    windows.take_children_along()
except OSError as error:
    print(error)
"""
    assert as_windows(JOB + code, tmp_path).endswith("error 5")


def test_the_boots_number_is_windows_own(tmp_path: Path):
    assert as_windows("from farm.agent import windows\nprint(windows.boot_id())", tmp_path) == "boot-41"
