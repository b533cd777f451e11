"""The few calls that only Windows has; elsewhere this module can be imported and does nothing."""

from __future__ import annotations

import sys

DETACHED_PROCESS = 0x00000008
CREATE_NEW_PROCESS_GROUP = 0x00000200
WM_CLOSE = 0x0010
KILL_ON_JOB_CLOSE = 0x00002000
EXTENDED_LIMITS = 9
"""JobObjectExtendedLimitInformation."""

if sys.platform == "win32":
    import ctypes
    import winreg
    from ctypes import wintypes

    _user32 = ctypes.WinDLL("user32", use_last_error=True)
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel32.GetCurrentProcess.restype = wintypes.HANDLE
    _kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    _kernel32.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD]
    _EnumProc = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.HWND, wintypes.LPARAM)
    _BOOT = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"

    class _Closer:
        """Posts WM_CLOSE to every top-level window of one process, as a click on its cross would."""

        def __init__(self, pid: int) -> None:
            self.pid, self.closed = pid, 0

        def __call__(self, window: int, _: int) -> bool:
            owner = wintypes.DWORD()
            _user32.GetWindowThreadProcessId(window, ctypes.byref(owner))
            if owner.value == self.pid and _user32.PostMessageW(window, WM_CLOSE, 0, 0):
                self.closed += 1
            return True

    def close(pid: int) -> int:
        """Ask the windows of ``pid`` to close and return how many were asked."""
        closer = _Closer(pid)
        _user32.EnumWindows(_EnumProc(closer), 0)
        return closer.closed

    class _Limits(ctypes.Structure):
        """JOBOBJECT_EXTENDED_LIMIT_INFORMATION, its two inner structures laid out flat."""

        _fields_ = [
            ("process_time", ctypes.c_int64),
            ("job_time", ctypes.c_int64),
            ("flags", ctypes.c_uint32),
            ("least_working_set", ctypes.c_size_t),
            ("most_working_set", ctypes.c_size_t),
            ("most_processes", ctypes.c_uint32),
            ("affinity", ctypes.c_size_t),
            ("priority", ctypes.c_uint32),
            ("scheduling", ctypes.c_uint32),
            ("counters", ctypes.c_uint64 * 6),
            ("memory", ctypes.c_size_t * 4),
        ]

    def take_children_along() -> None:
        """Put this process into a job that ends with it: whatever it starts from now on dies when it dies.

        The job's one handle is never closed but by the system, when this process is gone; nothing inherits it. A child
        is in the job from its first instruction, which putting each in after its start could not promise.
        """
        job = _kernel32.CreateJobObjectW(None, None)
        limits = _Limits(flags=KILL_ON_JOB_CLOSE)
        done = (
            job
            and _kernel32.SetInformationJobObject(job, EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))
            and _kernel32.AssignProcessToJobObject(job, _kernel32.GetCurrentProcess())
        )
        if not done:
            raise OSError(f"the job of the live terminals could not be made: error {ctypes.get_last_error()}")

    def boot_id() -> str:
        """Return the number of this boot as Windows counts them; "" if it does not tell."""
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _BOOT) as key:
                return f"boot-{winreg.QueryValueEx(key, 'BootId')[0]}"
        except OSError:
            return ""

else:

    def close(pid: int) -> int:
        return 0

    def take_children_along() -> None:
        return None

    def boot_id() -> str:
        return ""
