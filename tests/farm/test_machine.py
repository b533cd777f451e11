"""Hypothesis plays the farm: customers, staff, payments and clocks want things, hosts obey, messages are lost, come
twice, late and in another order. What must always hold is asked after every step, and when the faults stop everything
comes to rest.
Hosts keep their live terminals under real leases and go dark, so the watch gives them up, and they return.

    FARM_MACHINE_EXAMPLES=500 pytest tests/farm/test_machine.py     to look for longer
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import timedelta
from unittest import mock

import pytest
from django.db import transaction
from django.test import override_settings
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from farm import clock, doorbell, errors, leases, lifecycle, tasks, vault
from farm.agent import protocol
from farm.agent.protocol import Connection, Outcome, Process, Reason, Refusal, Verb
from farm.models import BrokerAccount, Host, Instance
from farm.states import Goal, Kind, Status
from tests.factories import HOST_SIGNING_KEY, AnsweringHost, HostFactory, fill_vault, instance
from tests.farm import invariants

EXAMPLES = int(os.environ.get("FARM_MACHINE_EXAMPLES", "12"))
SERVER = "PaperBroker-Live"
WRONG = 7_000_003
"""The broker lets the other logins in, and not this one."""
LOGINS = (7_000_001, 7_000_002, WRONG)
STOP = 30.0
"""A host takes just as long as it may to stop its live terminals when their lease is over."""
RULES = {"WATCH_SECONDS": 10, "LEASE_SECONDS": 120, "DRIFT_SECONDS": 15, "BRAKE_GRACE_SECONDS": 60}
TROUBLE = (Reason.FILES_IN_USE, Reason.PORT_TAKEN, Reason.DISK_FULL, Reason.CRASH_LOOP)


class Clone:
    """One instance as its host has it."""

    def __init__(self):
        self.age = (0, 0)
        self.present = self.buried = self.up = self.wanted = False
        self.account = None
        self.folder, self.kind = "", ""


class Machine:
    """A host that does what the agent does with orders, as far as the portal can see it."""

    def __init__(self, host):
        self.answering = AnsweringHost(host)
        self.clones, self.orders = {}, []
        self.silent = False
        self.lease_ends = 0.0

    def obey(self, envelope, trouble=None):
        """Act on an order and return the signed report."""
        order = protocol.Order.parse(envelope["body"])
        clone = self.clones.setdefault(order.instance, Clone())
        if order.age < clone.age or (clone.buried and order.verb is Verb.CLONE):
            reason = Reason.TOMBSTONE if clone.buried else Reason.STALE
            return self._report(order, clone, Outcome.REFUSED, reason)
        clone.age = order.age
        clone.folder, clone.kind = order.folder, order.kind
        if trouble is not None:
            return self._report(order, clone, Outcome.FAILED, trouble)
        if order.verb in {Verb.INJECT, Verb.START} and not clone.present:
            return self._report(order, clone, Outcome.FAILED, Reason.CLONE_MISSING)
        if order.verb is Verb.START and clone.kind == Kind.LIVE and not clone.up and not self.has_lease():
            return self._report(order, clone, Outcome.FAILED, Reason.NO_LEASE)
        if order.verb is Verb.CLONE:
            clone.present = True
        elif order.verb is Verb.INJECT:
            clone.account = (order.server, order.login)
        elif order.verb is Verb.START:
            clone.up = clone.wanted = True
        else:
            clone.up = clone.wanted = False
        if order.verb is Verb.DESTROY:
            clone.present, clone.buried = False, True
        return self._report(order, clone, Outcome.DONE, Reason.NONE)

    def _report(self, order, clone, outcome, reason):
        report = protocol.Report(
            host=order.host,
            instance=order.instance,
            epoch=order.epoch,
            generation=order.generation,
            verb=order.verb,
            outcome=outcome,
            reason=reason,
            sent_at=clock.now().timestamp(),
            observed=self._line(order.instance, clone),
        )
        return protocol.sign(report, HOST_SIGNING_KEY)

    def _line(self, number, clone):
        server, login = clone.account or ("", None)
        refused = clone.up and login == WRONG
        connection = Connection.NO_ACCOUNT if login is None else Connection.CONNECTED
        beat = {"at": clock.now().timestamp(), "login": login, "server": server, "trade_allowed": True}
        return protocol.Observation(
            instance=number,
            folder=clone.folder,
            present=clone.present,
            process=Process.RUNNING if clone.up else Process.STOPPED,
            connection=Connection.REFUSED if refused else connection,
            refusal=Refusal.CREDENTIALS if refused else Refusal.NONE,
            synchronized=clone.up,
            trading=True if clone.up and login else None,
            heartbeat=beat if clone.up and login else None,
            epoch=clone.age[0],
            generation=clone.age[1],
        )

    def survey(self):
        lines = [self._line(number, clone) for number, clone in self.clones.items() if not clone.buried]
        envelopes: list[object] = []
        with mock.patch.object(lifecycle, "record_survey", envelopes.append):
            self.answering.survey(*lines, policy=protocol.Policy.FENCED)
        return envelopes[0]

    # --- its lease ---

    def request(self):
        """What asks for a lease, and when it was sent."""
        now = clock.now().timestamp()
        host = self.answering.host.name
        request = protocol.LeaseRequest(host=host, nonce="n", boot_id="boot", sent_at=now, stop_seconds=STOP)
        return protocol.sign(request, HOST_SIGNING_KEY), now

    def granted(self, seconds, sent):
        """The lease counts from when it was asked for; what had to stop for want of one starts again by itself."""
        self.lease_ends = max(self.lease_ends, sent + seconds)
        if self.has_lease():
            for clone in self.live():
                clone.up = clone.wanted and clone.present

    def has_lease(self):
        return clock.now().timestamp() < self.lease_ends

    def live(self):
        return [clone for clone in self.clones.values() if clone.kind == Kind.LIVE and not clone.buried]

    def mind_lease(self):
        if clock.now().timestamp() >= self.lease_ends + STOP:
            for clone in self.live():
                clone.up = False


class Farm(RuleBasedStateMachine):
    @initialize(slots=st.integers(1, 3), demos=st.integers(0, 2), lived=st.booleans())
    def begin(self, slots, demos, lived):
        self.open = ExitStack()
        outermost = transaction.atomic()
        outermost._from_testcase = True  # leases are granted in a transaction that must not be within another
        self.open.enter_context(outermost)
        self.open.enter_context(override_settings(**RULES))
        self.open.enter_context(mock.patch.object(doorbell, "answers", return_value=True))
        self.open.enter_context(clock.moved(timedelta()))
        self.open.enter_context(mock.patch.object(doorbell, "ring", self.ring))
        self.open.enter_context(mock.patch.object(doorbell, "ring_on_commit", lambda *args: self.ring(*args)))
        fill_vault(demos)
        self.machines = {host.queue: Machine(host) for host in (HostFactory.create(slots=slots) for _ in range(2))}
        self.rings, self.reports, self.surveys, self.generations = [], [], [], {}
        self.requests = []
        self.broker_down = False
        if lived:
            self.somebody_goes_live_and_all_goes_well(LOGINS[0])

    def ring(self, task, *args, queue=None, **how):
        if self.broker_down:
            return False
        (self.machines[queue].orders if queue else self.rings).append(args[0] if queue else (task, *args))
        return True

    def teardown(self):
        if not hasattr(self, "open"):
            return
        try:
            self.comes_to_rest()
        finally:
            transaction.set_rollback(True)
            self.open.close()

    def some(self, data, rows):
        rows = list(rows.order_by("pk"))
        return data.draw(st.sampled_from(rows)) if rows else None

    # --- what people want ---

    @rule()
    def somebody_signs_up(self):
        if Instance.objects.count() < 6:
            instance()

    @rule(data=st.data(), what=st.sampled_from(["end", "restart", "stop", "resume", "retry"]))
    def somebody_asks(self, data, what):
        row = self.some(data, Instance.objects.exclude(status=Status.DESTROYED))
        if row is None or (row.kind == Kind.PRESS_PASS and what in {"stop", "resume"}):
            return
        why = {} if what in {"restart", "retry"} else {"why": "asked"}
        try:
            with transaction.atomic():
                getattr(lifecycle, what)(row.pk, who="test", **why)
        except errors.Refused:
            pass

    @rule(data=st.data(), login=st.sampled_from(LOGINS), same=st.booleans(), paid=st.booleans())
    def somebody_wants_to_go_live(self, data, login, same, paid):
        rows = Instance.objects.exclude(goal=Goal.DESTROYED).filter(replaced_by__isnull=True)
        old = self.some(data, rows.exclude(status=Status.WAITING, held_until__isnull=False))
        if old is None or Instance.objects.count() > 10:
            return
        if same and old.account is not None and old.kind == Kind.LIVE:
            login = old.account.login
        account = BrokerAccount.objects.create(
            owner=old.customer, server=SERVER, login=login, password=vault.encrypted("Right-1aA")
        )
        about = {"customer_id": old.customer_id, "account": account, "replaces": old, "who": "test"}
        try:
            with transaction.atomic():
                if paid:
                    lifecycle.go_on(**about)
                else:
                    lifecycle.hold(**about, until=clock.now() + timedelta(minutes=31))
        except errors.Refused:
            pass

    @rule(login=st.sampled_from(LOGINS[:2]))
    def somebody_goes_live_and_all_goes_well(self, login):
        if Instance.objects.count() > 6:
            return
        self.broker_down = False
        demo = instance()
        account = BrokerAccount.objects.create(
            owner=demo.customer, server=SERVER, login=login, password=vault.encrypted("Right-1aA")
        )
        lifecycle.go_on(customer_id=demo.customer_id, account=account, replaces=demo, who="test")
        self.all_goes_well_for_a_while(3)

    @rule(data=st.data(), paid=st.booleans())
    def a_hold_is_decided(self, data, paid):
        row = self.some(data, Instance.objects.filter(held_until__isnull=False, kind=Kind.LIVE))
        if row is not None:
            self.decide(row, paid)

    def decide(self, row, paid):
        if paid:
            for _ in range(2):
                lifecycle.activate(row.pk, who="payment")
        else:
            lifecycle.release_hold(row.pk, why="not paid", who="payment")

    @rule(data=st.data(), in_time=st.booleans())
    def an_offer_is_accepted_or_withdrawn(self, data, in_time):
        row = self.some(data, Instance.objects.filter(held_until__isnull=False, kind=Kind.PRESS_PASS))
        if row is not None and in_time:
            lifecycle.accept(row.pk, who="customer:1")
        elif row is not None:
            lifecycle.withdraw_expired()

    @rule()
    def idle_ones_are_recycled(self):
        ids = list(Instance.objects.values_list("pk", flat=True))
        lifecycle.recycle(ids, why="idle", who="test", idle_before=clock.now() - timedelta(minutes=10))

    # --- messages ---

    @rule(data=st.data(), keep=st.booleans())
    def a_ring_is_heard(self, data, keep):
        if self.rings:
            self.hear(self.taken(data, self.rings, keep))

    def hear(self, ring):
        task, *args = ring
        {doorbell.DISPATCH: tasks.dispatch, doorbell.ADMIT: tasks.admit, doorbell.SWEEP: tasks.sweep}[task](*args)

    def taken(self, data, letters, keep):
        """One of them, in any order; left there to come again if ``keep``."""
        letter = data.draw(st.sampled_from(range(len(letters))))
        return letters[letter] if keep else letters.pop(letter)

    @rule(data=st.data(), keep=st.booleans(), trouble=st.sampled_from([None, None, None, *TROUBLE]))
    def a_host_obeys(self, data, keep, trouble):
        machine = data.draw(st.sampled_from(list(self.machines.values())))
        if machine.orders and not machine.silent:
            self.reports.append(machine.obey(self.taken(data, machine.orders, keep), trouble))

    @rule(data=st.data(), keep=st.booleans())
    def a_report_comes(self, data, keep):
        if self.reports:
            lifecycle.record(self.taken(data, self.reports, keep))

    @rule(data=st.data())
    def a_host_surveys(self, data):
        machine = data.draw(st.sampled_from(list(self.machines.values())))
        if not machine.silent:
            self.surveys.append(machine.survey())
            self.requests.append((machine, *machine.request()))

    @rule(data=st.data(), keep=st.booleans())
    def a_request_for_a_lease_comes(self, data, keep):
        if self.requests:
            self.grant(*self.taken(data, self.requests, keep))

    def grant(self, machine, envelope, sent):
        for letter in leases.grant([envelope]).letters:
            machine.granted(protocol.LeaseGrant.parse(letter.envelope["body"]).seconds, sent)

    @rule(data=st.data(), keep=st.booleans())
    def a_survey_comes(self, data, keep):
        if self.surveys:
            lifecycle.record_survey(self.taken(data, self.surveys, keep))

    @rule(what=st.sampled_from(["rings", "reports", "surveys", "requests", "orders"]))
    def messages_are_lost(self, what):
        boxes = [machine.orders for machine in self.machines.values()] if what == "orders" else [getattr(self, what)]
        for box in boxes:
            box.clear()

    @rule(data=st.data())
    def a_host_falls_silent_or_speaks_again(self, data):
        machine = data.draw(st.sampled_from(list(self.machines.values())))
        machine.silent = not machine.silent

    @rule()
    def the_broker_goes_or_comes(self):
        self.broker_down = not self.broker_down

    @rule(data=st.data(), state=st.sampled_from(Host.State.values))
    def staff_drain_a_host(self, data, state):
        machine = data.draw(st.sampled_from(list(self.machines.values())))
        Host.objects.filter(pk=machine.answering.host.pk).update(state=state)

    @rule(data=st.data(), gone=st.booleans())
    def a_terminal_dies(self, data, gone):
        clones = [clone for machine in self.machines.values() for clone in machine.clones.values() if clone.up]
        if clones:
            clone = data.draw(st.sampled_from(clones))
            clone.up, clone.present = False, clone.present and not gone

    @rule(seconds=st.sampled_from([1, 20, 65, 100, 700]))
    def time_passes(self, seconds):
        self.later(seconds)

    def later(self, seconds):
        clock.move(timedelta(seconds=seconds))
        for machine in self.machines.values():
            machine.mind_lease()

    @rule()
    def the_watch_looks(self):
        lifecycle.watch_hosts()

    @rule(data=st.data(), looks=st.sampled_from([2, 10, 14]))
    def after_a_good_time_a_host_is_dark_for_long_while_the_others_speak(self, data, looks):
        self.broker_down = False
        self.looks(4)
        machines = list(self.machines.values())
        dark = data.draw(
            st.sampled_from([one for one in machines if any(clone.up for clone in one.live())] or machines)
        )
        dark.silent = True
        self.looks(looks)
        for _ in range(2):
            self.no_account_runs_twice()
            self.one_quiet_round()

    def looks(self, number):
        """All speak but the silent ones, and somebody watches."""
        for _ in range(number):
            self.later(20)
            for machine in self.machines.values():
                if not machine.silent:
                    self.speak(machine)
            lifecycle.watch_hosts()

    def speak(self, machine):
        lifecycle.record_survey(machine.survey())
        self.grant(machine, *machine.request())

    @rule()
    def the_sweep_comes(self):
        tasks.sweep()

    @rule(rounds=st.integers(1, 3))
    def all_goes_well_for_a_while(self, rounds):
        for _ in range(rounds):
            self.one_quiet_round()

    # --- what must hold ---

    @invariant()
    def everything_adds_up(self):
        if hasattr(self, "open"):
            invariants.check()
            assert invariants.stuck() == []

    @invariant()
    def no_account_runs_twice(self):
        if hasattr(self, "open"):
            up = [
                clone.account
                for machine in self.machines.values()
                for clone in machine.clones.values()
                if clone.up and clone.account
            ]
            assert len(up) == len(set(up)), f"{up} run at once"

    @invariant()
    def generations_only_rise(self):
        if hasattr(self, "open"):
            now = dict(Instance.objects.values_list("pk", "generation"))
            assert all(now[pk] >= before for pk, before in self.generations.items())
            self.generations = now

    def comes_to_rest(self):
        """No more faults: everybody answers, staff try again what failed, holds are decided."""
        self.broker_down = False
        Host.objects.update(state=Host.State.ONLINE, slots=20)
        for machine in self.machines.values():
            machine.silent = False
        for row in Instance.objects.filter(held_until__isnull=False, kind=Kind.LIVE):
            self.decide(row, paid=row.pk % 2 == 0)
        for _ in range(60):
            self.one_quiet_round()
            if not self.unsettled().exists():
                break
        assert not self.unsettled().exists(), list(self.unsettled().values("pk", "status", "goal", "reason", "next_at"))
        invariants.check()
        self.rows_and_processes_agree()

    def unsettled(self):
        return Instance.objects.exclude(
            next_at__isnull=True, status__in=[Status.RUNNING, Status.STOPPED, Status.DESTROYED]
        ).exclude(status=Status.WAITING, goal=Goal.STOPPED)

    def one_quiet_round(self):
        self.later(20)
        awake = [machine for machine in self.machines.values() if not machine.silent]
        for machine in awake:
            self.speak(machine)
        lifecycle.watch_hosts()
        for row in Instance.objects.filter(status=Status.FAILED, next_at__isnull=True):
            lifecycle.retry(row.pk, who="staff:1")
        for row in Instance.objects.filter(held_until__isnull=False, kind=Kind.PRESS_PASS):
            lifecycle.accept(row.pk, who="customer:1")
        tasks.sweep()
        while self.rings or self.reports or any(machine.orders for machine in awake):
            while self.rings:
                self.hear(self.rings.pop(0))
            for machine in awake:
                while machine.orders:
                    self.reports.append(machine.obey(machine.orders.pop(0)))
            while self.reports:
                lifecycle.record(self.reports.pop(0))

    def rows_and_processes_agree(self):
        up = {pk for machine in self.machines.values() for pk, clone in machine.clones.items() if clone.up}
        running = set(Instance.objects.filter(status=Status.RUNNING).values_list("pk", flat=True))
        assert up == running
        assert not Instance.objects.filter(status=Status.RUNNING, goal=Goal.DESTROYED).exists()


@pytest.mark.django_db
def test_whatever_happens_the_rows_add_up_and_come_to_rest():
    run_state_machine_as_test(
        Farm,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            phases=[Phase.explicit, Phase.reuse, Phase.generate] if EXAMPLES > 12 else tuple(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )
