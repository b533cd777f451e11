"""The only writer of an instance's status, by phase.

moving      the one compare-and-set that everything here goes through
asking      customers, staff and clocks want something of an instance
living      a live terminal: held, paid, proven, and only then the old one goes
line        a slot is held for somebody in line who is not there, accepted, or goes on to the next
ending      Press Passes whose days are over, and those that a mail's link keeps alive
demo        demo accounts that a broker refuses are replaced
keeping     what the customer made goes along from the old instance to the new one
dispatching the row is claimed and its order written
recording   a host's answer to an order becomes the next status
surveying   what a host says of itself, compared with the rows
orphans     what no row accounts for is left alone, and destroyed when that is surely right
draining    a host is emptied, a few at a time
watching    which hosts are silent, and whether the portal itself may be blind: the brake
failing_over  what a lost host ran comes up elsewhere
drilling    that is rehearsed, on canaries
restoring   the database was put back from a backup: what runs on the hosts may be unknown to the rows
sweeping    whatever has a step due is rung for; the line is served
"""

from farm.lifecycle.asking import current, recycle, request, restart, retry, touch, waiting_position
from farm.lifecycle.demo import replace_refused
from farm.lifecycle.dispatching import claim, put_back
from farm.lifecycle.draining import Left, blockers, drain, drain_on, left_on, undo_drain
from farm.lifecycle.drilling import CANARY_EMAIL, rehearse
from farm.lifecycle.ending import TOLD_BEFORE, end_over, keep_alive, next_warning, reckon_ends, set_end
from farm.lifecycle.failing_over import fail_over, give_up_host, retire
from farm.lifecycle.keeping import accept_keepsake, ask_for_keepsake, fetch_keepsakes
from farm.lifecycle.line import accept, expected_wait, expired_offers, foreseen, is_watched, watch, withdraw_expired
from farm.lifecycle.living import activate, end, expired_holds, go_on, hold, hold_longer, release_hold, resume, stop
from farm.lifecycle.orphans import claim_orphan, destroy_orphan, is_surely_flat, may_be_ordered, sweep_orphans
from farm.lifecycle.recording import record
from farm.lifecycle.restoring import after_restore
from farm.lifecycle.surveying import record_survey
from farm.lifecycle.sweeping import admit, sweep
from farm.lifecycle.watching import pull_brake, release_brake, watch_hosts

__all__ = [
    "CANARY_EMAIL",
    "TOLD_BEFORE",
    "Left",
    "accept",
    "accept_keepsake",
    "activate",
    "admit",
    "after_restore",
    "ask_for_keepsake",
    "blockers",
    "claim",
    "claim_orphan",
    "current",
    "destroy_orphan",
    "drain",
    "drain_on",
    "end",
    "end_over",
    "expected_wait",
    "expired_holds",
    "expired_offers",
    "fail_over",
    "fetch_keepsakes",
    "foreseen",
    "give_up_host",
    "go_on",
    "hold",
    "hold_longer",
    "is_surely_flat",
    "is_watched",
    "keep_alive",
    "left_on",
    "may_be_ordered",
    "next_warning",
    "pull_brake",
    "put_back",
    "reckon_ends",
    "record",
    "record_survey",
    "recycle",
    "rehearse",
    "release_brake",
    "release_hold",
    "replace_refused",
    "request",
    "restart",
    "resume",
    "retire",
    "retry",
    "set_end",
    "stop",
    "sweep",
    "sweep_orphans",
    "touch",
    "undo_drain",
    "waiting_position",
    "watch",
    "watch_hosts",
    "withdraw_expired",
]
