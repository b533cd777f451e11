"""The whole of it on one machine, as processes: what `make run`, the acceptance tests and the benchmarks start.

places        where everything lies under the data folder, and what holds the lock on it
keys          the secrets of this stack, made once
environments  what each process is told: only what it needs
children      one process, its log, and starting it again when it dies
reaper        a program of its own that ends what is left if the launcher is killed
prepare       a program of its own that brings the database up to date
running       the stack itself
"""

from bitten_portal.stack.places import StackError
from bitten_portal.stack.running import Stack

__all__ = ["Stack", "StackError"]
