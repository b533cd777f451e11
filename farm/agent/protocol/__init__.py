"""What portal and host say to each other, and how each proves who said it.

The portal sends an :class:`Order` ("be this"), the host answers a :class:`Report` ("this is what I observed") and
sends a :class:`Survey` of everything on it every few seconds. Each travels as an :class:`Envelope`: the exact text and
an Ed25519 signature over it, so that nobody who can merely write to the broker can command a host or speak for one.
A password stands in an order only inside ``sealed``, readable by the addressed host alone.

Standard library and PyNaCl only: this package is all that portal and agent share.
"""

from farm.agent.protocol.envelopes import (
    Credentials,
    Envelope,
    b64,
    claimed_host,
    opened,
    sign,
    unb64,
    unseal,
)
from farm.agent.protocol.messages import (
    MOST_LEASE_SECONDS,
    MOST_STOP_SECONDS,
    Heartbeat,
    LeaseGrant,
    LeaseRequest,
    Message,
    Observation,
    Order,
    Report,
    Survey,
    observation,
)
from farm.agent.protocol.names import (
    LEASES_QUEUE,
    OBEY_TASK,
    ORDER_LIFETIME_SECONDS,
    RECORD_TASK,
    REPORTS_QUEUE,
    SURVEY_TASK,
    SURVEYS_QUEUE,
    BadName,
    Forged,
    Malformed,
    ProtocolError,
    Unsealable,
    checked_name,
    host_queue,
    lease_queue,
    unreadable_state,
)
from farm.agent.protocol.words import (
    Connection,
    Outcome,
    Policy,
    Process,
    Reason,
    Refusal,
    Verb,
)

__all__ = [
    "LEASES_QUEUE",
    "MOST_LEASE_SECONDS",
    "MOST_STOP_SECONDS",
    "OBEY_TASK",
    "ORDER_LIFETIME_SECONDS",
    "RECORD_TASK",
    "REPORTS_QUEUE",
    "SURVEYS_QUEUE",
    "SURVEY_TASK",
    "BadName",
    "Connection",
    "Credentials",
    "Envelope",
    "Forged",
    "Heartbeat",
    "LeaseGrant",
    "LeaseRequest",
    "Malformed",
    "Message",
    "Observation",
    "Order",
    "Outcome",
    "Policy",
    "Process",
    "ProtocolError",
    "Reason",
    "Refusal",
    "Report",
    "Survey",
    "Unsealable",
    "Verb",
    "b64",
    "checked_name",
    "claimed_host",
    "host_queue",
    "lease_queue",
    "observation",
    "opened",
    "sign",
    "unb64",
    "unreadable_state",
    "unseal",
]
