"""What a host asks, and which answers it takes: the portal's, to this host, in this boot, to what it asked itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from nacl.signing import SigningKey

from farm.agent import clocks, lease_file, protocol, pulse, watchdog
from farm.agent.background import Background
from farm.agent.leasing import REMEMBERED, Leasing
from farm.agent.outbox import Outbox
from farm.agent.protocol import Envelope, LeaseGrant, LeaseRequest, Policy, ProtocolError
from farm.agent.protocol.names import LEASES_QUEUE
from farm.agent.pulse import Pulse
from farm.agent.survey import Surveyor
from tests.agent.house import ACCOUNT, House


class Bench:
    """A fenced house whose watchdog has just ticked, and the portal's pen."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.state = house.settings.state_folder
        self.state.mkdir()
        self.now = clocks.moment()
        self.tick()
        self.anew(policy=Policy.FENCED)

    def anew(self, **changes: Any) -> None:
        """The agent, restarted."""
        self.house.context = replace(self.house.anew(**changes), moment=lambda: self.now)
        self.leasing = Leasing(self.house.context)

    def tick(self, *, ago: float = 0.0, **changes: Any) -> None:
        now = self.now
        pulse.save(self.state, Pulse(watchdog="w", boot_id=now.boot_id, since_boot=now.since_boot - ago, **changes))

    def ask(self, nonce: str = "n") -> LeaseRequest:
        request = self.leasing.request(nonce)
        assert request is not None
        assert LeaseRequest.parse(request.body()) == request
        return request

    def grant(self, *, key: SigningKey | None = None, **changes: Any) -> Envelope:
        fields = {"host": "alpha", "nonce": "n", "boot_id": self.now.boot_id, "seconds": 120.0}
        return protocol.sign(LeaseGrant(**{**fields, **changes}), key or self.house.portal)

    def kept(self) -> float | None:
        lease = lease_file.load(self.state)
        return lease.left(self.now) if lease else None


@pytest.fixture
def bench(house: House) -> Bench:
    return Bench(house)


# --- refused ----------------------------------------------------------------------------------------------------------


def refused(bench: Bench, envelope: Any) -> None:
    with pytest.raises(ProtocolError):
        bench.leasing.granted(envelope)
    assert bench.kept() is None


def test_a_forged_grant_is_refused(bench: Bench):
    bench.ask()
    refused(bench, bench.grant(key=SigningKey.generate()))
    refused(bench, bench.grant(key=bench.house.keys.sign))


@pytest.mark.parametrize("envelope", [None, 7, [], {}, {"body": "{}", "signature": "?"}, {"body": 1, "signature": 2}])
def test_what_is_no_envelope_is_refused(bench: Bench, envelope: Any):
    bench.ask()
    refused(bench, envelope)


def test_another_hosts_grant_is_refused(bench: Bench):
    bench.ask()
    refused(bench, bench.grant(host="beta"))


def test_a_grant_that_nobody_asked_for_is_refused(bench: Bench):
    refused(bench, bench.grant())
    bench.ask("m")
    refused(bench, bench.grant())


def test_a_grant_for_a_request_long_ago_is_refused(bench: Bench):
    bench.ask("n")
    for number in range(REMEMBERED):
        bench.ask(f"later {number}")
    refused(bench, bench.grant())
    bench.leasing.granted(bench.grant(nonce="later 0"))


def test_a_grant_of_another_boot_is_refused(bench: Bench):
    bench.ask()
    refused(bench, bench.grant(boot_id="another"))
    bench.now = replace(bench.now, boot_id="another")
    refused(bench, bench.grant(boot_id="another"))


def test_an_order_in_a_grants_place_is_refused(bench: Bench):
    bench.ask()
    refused(bench, bench.house.envelope(bench.house.order("stop")))


def test_an_earlier_agents_grant_means_nothing_to_the_next(bench: Bench):
    bench.ask()
    bench.anew()
    refused(bench, bench.grant())


# --- asked and taken --------------------------------------------------------------------------------------------------


def test_a_request_says_how_long_a_stop_may_take(bench: Bench):
    request = bench.ask()
    assert request.stop_seconds == watchdog.stop_seconds(bench.house.settings)
    assert (request.host, request.nonce, request.boot_id) == ("alpha", "n", bench.now.boot_id)


def test_nothing_is_asked_without_a_watchdog_that_ticks(bench: Bench):
    bench.tick(ago=11)
    assert bench.leasing.request("n") is None
    (bench.state / "watchdog.json").unlink()
    assert bench.leasing.request("n") is None


def test_a_static_host_asks_for_nothing(bench: Bench):
    bench.anew(policy=Policy.STATIC)
    assert bench.leasing.request("n") is None


def test_a_lease_counts_from_its_request_however_long_the_grant_took(bench: Bench):
    bench.ask()
    bench.now = replace(bench.now, since_boot=bench.now.since_boot + 50, wall=bench.now.wall + 50)
    bench.leasing.granted(bench.grant())
    assert bench.kept() == pytest.approx(70)


def test_one_that_came_too_late_is_not_kept(bench: Bench):
    bench.ask()
    bench.now = replace(bench.now, since_boot=bench.now.since_boot + 120)
    bench.leasing.granted(bench.grant())
    assert bench.kept() is None


def test_of_grants_in_any_order_the_one_that_ends_last_is_kept(bench: Bench):
    bench.ask("long")
    bench.ask("short")
    bench.leasing.granted(bench.grant(nonce="long", seconds=7200.0))
    bench.leasing.granted(bench.grant(nonce="short", seconds=120.0))
    assert bench.kept() == pytest.approx(7200)


def test_a_grant_that_comes_twice_makes_nothing_longer(bench: Bench):
    bench.ask()
    bench.leasing.granted(bench.grant())
    bench.now = replace(bench.now, since_boot=bench.now.since_boot + 30, wall=bench.now.wall + 30)
    bench.leasing.granted(bench.grant())
    assert bench.kept() == pytest.approx(90)


def test_a_portal_key_that_is_being_changed_still_grants(bench: Bench):
    old = SigningKey.generate()
    bench.anew(portal_keys=(*bench.house.settings.portal_keys, old.verify_key))
    bench.ask()
    bench.leasing.granted(bench.grant(key=old))
    assert bench.kept() == pytest.approx(120)


# --- surveyed ---------------------------------------------------------------------------------------------------------


def test_a_survey_says_what_the_host_may_do(bench: Bench):
    found = Surveyor(bench.house.context).survey()
    assert (found.policy, found.watchdog_ok, found.lease_left) == (Policy.FENCED, True, None)
    bench.ask()
    bench.leasing.granted(bench.grant())
    assert 100 < Surveyor(bench.house.context).survey().lease_left <= 120
    bench.tick(ago=11)
    assert not Surveyor(bench.house.context).survey().watchdog_ok


def test_a_host_that_cannot_say_how_it_is_asks_for_its_lease_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    sent: list[str] = []
    outbox = Outbox(lambda task, envelope, queue: sent.append(queue), bench.house.keys.sign)
    monkeypatch.setattr(Surveyor, "survey", _defect)
    background = Background(bench.house.context, outbox, bench.leasing)
    with pytest.raises(OverflowError):
        background._survey()
    assert outbox.flush()
    assert sent == [LEASES_QUEUE]


def test_a_defect_in_one_instance_keeps_no_other_start_from_being_told(house: House, monkeypatch: pytest.MonkeyPatch):
    house.done("clone")
    house.obey("start")
    looked: list[int] = []
    monkeypatch.setattr(house.context.watch, "look", _defect)
    background = Background(house.context, Outbox(lambda *_: None, house.keys.sign), Leasing(house.context))
    monkeypatch.setattr(background, "_look_at_pending", lambda instance: looked.append(instance) or _defect())
    background.expect(18)
    background._watch()
    assert looked == [17, 18]


def _defect(*_: object, **__: object) -> Any:
    raise OverflowError


def test_a_static_host_surveys_that_it_is_and_no_lease(house: House):
    found = Surveyor(house.context).survey()
    assert (found.policy, found.watchdog_ok, found.lease_left) == (Policy.STATIC, True, None)


def test_a_survey_says_what_an_instance_was_started_as(house: House):
    house.done("clone")
    row = Surveyor(house.context).survey().instances[0]
    assert (row.kind, row.server, row.login) == ("", "", None)
    house.done("inject", kind="live", **ACCOUNT)
    house.done("start", kind="live", **ACCOUNT)
    row = Surveyor(house.context).survey().instances[0]
    assert (row.kind, row.server, row.login) == ("live", ACCOUNT["server"], ACCOUNT["login"])


def test_the_portal_is_told_the_longer_stop_of_a_watchdog_that_runs_on_older_settings(bench):
    usual = bench.ask().stop_seconds
    bench.tick(stops_within=usual + 7)
    assert bench.ask().stop_seconds == usual + 7
    bench.tick(stops_within=usual - 7)
    assert bench.ask().stop_seconds == usual
