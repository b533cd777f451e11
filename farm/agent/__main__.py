"""``python -m farm.agent``: all that the agent does, for an operator on the host.

Prints one JSON object on standard output. Exit code 0: done; 1: could not, with the reason in the JSON; 2: wrong usage.
"""

from __future__ import annotations

import sys

from farm.agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
