"""What happens to customers, by phase. Acts on terminals only through farm.lifecycle.

joining     an address is typed: a new customer with a terminal, or a known one who gets a link
links       a sign-in link is asked for, looked at and used, once
passes      a Press Pass is looked at, restarted, ended, begun again
news        the journal is read for what customers are told by mail
notices     mails are sent from their rows
coming      whether a terminal came from another machine, and what came along
showing     the customer's page: one terminal, what stands beside it, and the plan
idling      one run of recycle_idle: told first, then ended or recycled, then the line is served
warning     customers are told before their terminal goes
keep_alive  the link in such a mail, which keeps it
move_news   what they are told of a machine that is silent or lost, and of a terminal that moves
pass_news   what customers are told of their Press Pass, and in which words
looking     which rows a run of recycle_idle looks at
leaving     what is stored about a customer: all of it handed out, or all of it deleted
runs        that it runs, and what else staff must see to
"""

from presspass.lifecycle.idling import Summary, recycle_idle
from presspass.lifecycle.joining import Joined, join, remember_zone
from presspass.lifecycle.links import ask, known_customer, look_at, use
from presspass.lifecycle.move_news import tell_of_silence
from presspass.lifecycle.news import notice_news
from presspass.lifecycle.notices import send_due
from presspass.lifecycle.passes import accept_slot, end, renew, restart, situation, start_again, told
from presspass.lifecycle.runs import watch
from presspass.lifecycle.showing import Shown, shown

__all__ = [
    "Joined",
    "Shown",
    "Summary",
    "accept_slot",
    "ask",
    "end",
    "join",
    "known_customer",
    "look_at",
    "notice_news",
    "recycle_idle",
    "remember_zone",
    "renew",
    "restart",
    "send_due",
    "shown",
    "situation",
    "start_again",
    "tell_of_silence",
    "told",
    "use",
    "watch",
]
