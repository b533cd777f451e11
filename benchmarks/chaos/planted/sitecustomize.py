"""Plants the fault that `make chaos` must find: on the host that has this folder in PYTHONPATH no lease ever ends.

Python imports a module of this name by itself at its start. The fence that the portal waits for is then too short by
any measure, and the live terminals of a lost host run twice.
"""

from __future__ import annotations

import sys

if "farm.agent" in sys.orig_argv:
    from farm.agent.lease import Lease

    Lease.left = lambda self, now: 3600.0  # type: ignore[method-assign]
