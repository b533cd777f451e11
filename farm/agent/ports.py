"""Whether an instance's port can be had. The number is the portal's to give; a stranger on the host may hold it."""

from __future__ import annotations

import socket
import sys


def is_free(port: int) -> bool:
    """Whether nobody listens on ``port``. The terminal's EA may: ask only while none of ours runs."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform == "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
