"""What a host refuses, what it repeats, and what it answers."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from nacl.signing import SigningKey

from farm.agent import orders, protocol, verbs
from farm.agent.protocol import Outcome, Process, Reason, Verb
from farm.agent.state import Goal, State
from tests.agent.house import ACCOUNT, LOGIN, PASSWORD, House
from tests.waiting import until

# --- nothing is done with these ---------------------------------------------------------------------------------------


def test_an_order_signed_by_somebody_else_is_not_obeyed_and_not_answered(house: House):
    envelope = protocol.sign(house.order("clone"), SigningKey.generate())
    with pytest.raises(protocol.Forged):
        orders.obey(house.context, envelope)
    assert not (house.root / "State").exists()


def test_an_order_changed_after_it_was_signed_is_forged(house: House):
    envelope = house.envelope(house.order("clone"))
    envelope["body"] = envelope["body"].replace("user_9", "user_8")
    with pytest.raises(protocol.Forged):
        orders.obey(house.context, envelope)


@pytest.mark.parametrize(
    "envelope", [{}, {"body": "x"}, {"body": 1, "signature": "?"}, {"body": "{}", "signature": "!"}]
)
def test_what_is_no_envelope_is_malformed(house: House, envelope):
    with pytest.raises(protocol.Malformed):
        orders.obey(house.context, envelope)


def test_an_order_for_another_host_moved_into_our_queue_is_forged(house: House):
    with pytest.raises(protocol.Forged):
        house.obey("clone", host="beta")


def test_a_folder_that_leaves_the_farm_is_refused_before_any_path_is_built(house: House):
    body = house.order("clone").body().replace("user_9", "../Masters")
    signature = protocol.b64(house.portal.sign(body.encode()).signature)
    with pytest.raises(protocol.BadName):
        orders.obey(house.context, {"body": body, "signature": signature})


# --- these are answered, and nothing is done --------------------------------------------------------------------------


def test_an_order_older_than_a_day_is_refused_as_expired(house: House):
    report = house.obey("clone", issued_at=house.clock() - protocol.ORDER_LIFETIME_SECONDS - 1)
    assert (report.outcome, report.reason) == (Outcome.REFUSED, Reason.EXPIRED)
    assert not house.clone.exists()


def test_a_lower_generation_after_a_higher_one_is_refused_as_stale(house: House):
    house.done("destroy", generation=5)
    report = house.obey("clone", generation=4)
    assert (report.outcome, report.reason) == (Outcome.REFUSED, Reason.STALE)
    assert not house.clone.exists()


def test_a_lower_epoch_is_stale_however_high_its_generation(house: House):
    house.done("clone", epoch=2, generation=1)
    assert house.obey("destroy", epoch=1, generation=99).reason is Reason.STALE
    assert house.clone.is_dir()


def test_one_generation_does_not_serve_two_verbs(house: House):
    house.done("clone", generation=3)
    assert house.obey("destroy", generation=3).reason is Reason.STALE


def test_an_instance_never_changes_its_folder(house: House):
    house.done("clone")
    assert house.obey("destroy", folder="user_8").outcome is Outcome.REFUSED
    assert house.clone.is_dir()


def test_a_clone_that_comes_after_its_destroy_is_refused_by_the_tombstone(house: House):
    house.done("destroy")
    report = house.obey("clone")
    assert (report.outcome, report.reason) == (Outcome.REFUSED, Reason.TOMBSTONE)
    assert not house.clone.exists()


def test_credentials_sealed_for_another_order_are_refused(house: House):
    house.done("clone")
    other = house.order("inject", **ACCOUNT)
    stolen = replace(house.order("inject", **ACCOUNT), sealed=other.sealed)
    report = orders.obey(house.context, house.envelope(stolen))
    assert (report.outcome, report.reason) == (Outcome.REFUSED, Reason.UNSEALABLE)
    assert house.state().injected is None


def test_a_password_that_would_break_the_ini_is_refused_without_being_quoted(house: House):
    house.done("clone")
    report = house.obey("inject", password="secret\r\n[Tester]", **ACCOUNT)
    assert report.outcome is Outcome.FAILED
    assert "secret" not in report.body()


def test_a_state_that_cannot_be_read_is_a_failure_and_not_a_new_instance(house: House):
    house.done("clone")
    for name in ("17.json", "17.before"):
        (house.root / "State" / name).write_text("{", encoding="utf-8")
    assert house.obey("destroy").outcome is Outcome.FAILED
    assert house.clone.is_dir()


# --- what is done -----------------------------------------------------------------------------------------------------


def test_each_report_names_its_order_and_what_was_observed(house: House):
    report = house.done("clone", generation=7)
    assert (report.host, report.instance, report.epoch, report.generation) == ("alpha", 17, 1, 7)
    assert report.verb is Verb.CLONE
    assert report.observed.present
    assert report.observed.digest
    assert protocol.Report.parse(report.body()) == report


def test_the_same_order_twice_is_done_once_and_answered_twice(house: House):
    envelope = house.envelope(house.order("clone"))
    first = orders.obey(house.context, envelope)
    (house.clone / "mark").touch()
    second = orders.obey(house.context, envelope)
    assert (first.outcome, second.outcome) == (Outcome.DONE, Outcome.DONE)
    assert (house.clone / "mark").exists()


def test_the_generation_is_on_the_disk_before_anything_is_done(house: House, monkeypatch: pytest.MonkeyPatch):
    seen: list[State] = []

    def look(context, order, state) -> None:
        seen.append(context.load(17))

    monkeypatch.setitem(verbs.ACTS, Verb.CLONE, look)
    house.obey("clone", generation=4)
    assert seen[0].age == (1, 4)


def test_a_defect_in_a_verb_is_reported_by_its_type_only(house: House, monkeypatch: pytest.MonkeyPatch, caplog):
    def broken(context, order, state) -> None:
        raise RuntimeError(PASSWORD)

    monkeypatch.setitem(verbs.ACTS, Verb.CLONE, broken)
    report = house.obey("clone")
    assert (report.outcome, report.reason, report.detail) == (Outcome.FAILED, Reason.UNEXPECTED, "RuntimeError")
    assert "a defect while obeying" in caplog.text


def test_two_orders_for_one_instance_at_once_are_obeyed_one_after_the_other(house: House):
    inside: list[str] = []
    overlaps: list[list[str]] = []
    lock = threading.Lock()

    def watched(act):
        def run(context, order, state) -> None:
            with lock:
                inside.append(order.verb)
                if len(inside) > 1:
                    overlaps.append(list(inside))
            try:
                act(context, order, state)
            finally:
                with lock:
                    inside.remove(order.verb)

        return run

    known = dict(verbs.ACTS)
    verbs.ACTS.update({verb: watched(act) for verb, act in known.items()})
    try:
        envelopes = [house.envelope(house.order(verb)) for verb in ("clone", "stop", "clone", "stop", "destroy")]
        threads = [threading.Thread(target=orders.obey, args=(house.context, envelope)) for envelope in envelopes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        verbs.ACTS.update(known)
    assert overlaps == []
    assert house.state().age == (1, 5)
    assert house.state().tombstone
    assert not house.clone.exists()


def test_the_password_is_in_no_file_of_the_host(house: House):
    house.running(**ACCOUNT)
    holding = [
        path
        for path in house.root.rglob("*")
        if path.is_file()
        and path.name != "accounts.dat"
        and (PASSWORD.encode() in (raw := path.read_bytes()) or PASSWORD.encode("utf-16-le") in raw)
    ]
    assert holding == []


# --- starts -----------------------------------------------------------------------------------------------------------


def test_a_start_is_answered_only_when_the_broker_let_the_terminal_in(house: House):
    house.done("clone")
    house.done("inject", **ACCOUNT)
    assert house.obey("start", **ACCOUNT) is None
    report = until(lambda: orders.conclude(house.context, 17))
    assert report.outcome is Outcome.DONE
    seen = report.observed
    assert (seen.process, seen.connection, seen.trading) == (Process.RUNNING, protocol.Connection.CONNECTED, True)
    assert not house.ini.exists()
    assert orders.conclude(house.context, 17) is None


def test_a_start_with_a_wrong_password_is_done_and_says_refused(house: House):
    house.done("clone")
    house.done("inject", password="Wrong#word1", **ACCOUNT)
    report = house.done("start", **ACCOUNT)
    assert report.observed.connection is protocol.Connection.REFUSED
    assert report.observed.refusal is protocol.Refusal.CREDENTIALS
    assert report.observed.process is Process.RUNNING
    assert not house.ini.exists()


def test_an_investor_password_is_connected_but_may_not_trade(house: House):
    house.account(mode="investor")
    report = house.running(**ACCOUNT)
    assert report.observed.connection is protocol.Connection.CONNECTED
    assert (report.observed.trading, report.observed.refusal) == (False, protocol.Refusal.INVESTOR)


def test_a_server_that_the_terminal_does_not_know_is_refused_by_its_silence(house: House):
    house.done("clone")
    unknown = {"server": "Nowhere-Demo", "login": LOGIN}
    house.done("inject", **unknown)
    assert house.obey("start", **unknown) is None
    until(lambda: house.context.watch.look(house.state()).standing.ini_read)
    assert orders.conclude(house.context, 17) is None
    house.clock.ahead += house.settings.ready_seconds / 3
    report = until(lambda: orders.conclude(house.context, 17))
    assert report.outcome is Outcome.DONE
    assert report.observed.refusal is protocol.Refusal.SERVER_UNKNOWN


def test_a_broker_that_never_answers_is_refused_as_no_answer(house: House):
    house.account("noanswer")
    house.done("clone")
    house.done("inject", **ACCOUNT)
    house.obey("start", **ACCOUNT)
    until(lambda: house.context.watch.look(house.state()).standing.network_seen)
    house.clock.ahead += house.settings.ready_seconds * 0.8
    report = until(lambda: orders.conclude(house.context, 17))
    assert report.observed.refusal is protocol.Refusal.NO_ANSWER


def test_a_terminal_that_dies_at_once_is_a_failed_start_and_leaves_no_ini(house: House, monkeypatch):
    monkeypatch.setenv("PAPER_QUIRKS", "dies")
    house.done("clone")
    house.done("inject", **ACCOUNT)
    report = house.report("start", **ACCOUNT)
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.TERMINAL_DIED)
    assert "with 1" in report.detail
    assert report.observed.process is Process.STOPPED
    assert not house.ini.exists()
    assert house.state().goal is Goal.STOPPED


def test_a_terminal_that_says_nothing_is_stopped_and_reported_as_too_slow(house: House):
    house.anew(terminal_command="{python} -c 'import time; time.sleep(60)' /portable")
    house.done("clone")
    house.done("inject", **ACCOUNT)
    assert house.obey("start", **ACCOUNT) is None
    assert house.processes()
    house.clock.ahead += house.settings.ready_seconds + 1
    report = until(lambda: orders.conclude(house.context, 17))
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.TOO_SLOW)
    assert house.processes() == []
    assert not house.ini.exists()


def test_a_command_that_cannot_be_run_is_reported_as_such(house: House):
    house.anew(terminal_command="/nowhere/terminal64.exe /portable")
    house.done("clone")
    report = house.obey("start")
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.TERMINAL_COMMAND)
    assert not house.ini.exists()
    assert house.state().goal is Goal.STOPPED


def test_a_start_whose_worker_died_is_answered_by_the_next_worker(house: House):
    house.done("clone")
    house.obey("start")
    house.anew()
    assert until(lambda: orders.conclude(house.context, 17)).outcome is Outcome.DONE


def test_a_repeated_start_keeps_the_process_and_answers_again(house: House):
    first = house.running(**ACCOUNT)
    again = house.done("start", generation=house.generation, **ACCOUNT)
    assert again.observed.pid == first.observed.pid
