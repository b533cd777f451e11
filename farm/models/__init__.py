"""Facts about the farm: hosts, instances, their ports, accounts and journal. No behaviour; see farm.lifecycle."""

from farm.models.accounts import BrokerAccount, RefusedLogin
from farm.models.fleet import Drill, Orphan, Watch
from farm.models.hosts import Host, HostEvent
from farm.models.instances import MAGIC_BASE, Instance, Transition
from farm.models.keepsakes import Keepsake, Ticket
from farm.models.slots import Port, Seat

__all__ = [
    "MAGIC_BASE",
    "BrokerAccount",
    "Drill",
    "Host",
    "HostEvent",
    "Instance",
    "Keepsake",
    "Orphan",
    "Port",
    "RefusedLogin",
    "Seat",
    "Ticket",
    "Transition",
    "Watch",
]
