"""Who runs a command, for the journal."""

from __future__ import annotations

import getpass
import os


def operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"
