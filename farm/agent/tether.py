"""A child that dies with this process, however this process ends.

On Linux by the parent-death signal, which the child asks for itself between fork and exec. On Windows by the job that
:func:`farm.agent.windows.take_children_along` put this process into; nothing is left to do for one child. Elsewhere
there is no such thing, and the agent's watch over the watchdog has to do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    # PyDLL: between fork and exec the interpreter's lock must not be let go of, nobody would give it back.
    _prctl = ctypes.PyDLL(None, use_errno=True).prctl
    _prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    class _Tether:
        """Runs in the child, as the user that it is going to be: a later change of user would clear the signal."""

        def __init__(self) -> None:
            self._parent = os.getpid()

        def __call__(self) -> None:
            if _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")
            if os.getppid() != self._parent:  # it died before the signal was asked for
                os._exit(1)


def tether() -> Callable[[], None] | None:
    """Return what a child of this process has to do before it becomes the terminal.

    Whoever forks it must be the main thread: Linux sends the signal when the *thread* ends that forked.
    """
    return _Tether() if sys.platform == "linux" else None
