"""What a line of the journal says, and above all what it does not."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.agent.journal import Expected, Kind, Line, fact
from tests.agent.real_lines import (
    ALGO_OFF,
    ALGO_ON,
    AUTHORISED,
    BETTER,
    BY_SERVER,
    COMMON_ERROR,
    COMMUNITY,
    DAY,
    DISCONNECTED,
    ENABLED,
    ENABLED_DEMO,
    FORCE_FAILED,
    FORCE_REMOVED,
    GUARDIAN,
    INVALID,
    INVESTOR,
    LAUNCHED,
    LOGIN,
    LOST,
    NO_CONNECTION,
    NO_SERVICE,
    PREVIOUS,
    SCANNING,
    SHUTDOWN,
    START,
    SYNC_ERROR,
    SYNCHRONISED,
    UPDATE,
    kind,
    line,
    said,
)


class TestWhatIsNotBelieved:
    def test_another_logins_authorisation(self):
        assert (
            fact(line(AUTHORISED["MetaQuotes-Demo"], login=5000002), Expected(login=LOGIN, server="MetaQuotes-Demo"))
            is None
        )

    def test_a_login_that_only_begins_like_ours(self):
        assert fact(line(INVALID, login=50000012), Expected(login=LOGIN, server="MetaQuotes-Demo")) is None

    def test_an_authorisation_on_another_server(self):
        assert kind(AUTHORISED["JustMarkets-Demo3"], server="MetaQuotes-Demo") is None

    def test_a_server_whose_name_only_begins_like_ours(self):
        assert kind(AUTHORISED["FxPro-MT5 Demo"], server="FxPro-MT5") is None
        assert kind(AUTHORISED["VantageInternational-Live 5"], server="VantageInternational-Live") is None

    def test_a_refusal_by_another_server(self):
        assert kind(INVALID, server="MetaQuotes-Live") is None

    def test_a_failed_login_at_the_community_is_no_brokers_word(self):
        assert kind(COMMUNITY) is None

    def test_a_previous_authorisation_is_not_one(self):
        assert kind(PREVIOUS) is Kind.NETWORK

    def test_a_network_message_from_another_source(self):
        assert kind(AUTHORISED["MetaQuotes-Demo"].replace("\tNetwork\t", "\tExperts\t")) is None
        assert kind(SYNC_ERROR) is None

    def test_anything_about_an_account_while_none_is_expected(self):
        assert kind(INVALID, login=None) is None
        assert kind(AUTHORISED["MetaQuotes-Demo"], login=None) is None

    def test_an_authorisation_within_another_message(self):
        assert kind("GL\t0\t18:38:55.562\tNetwork\tsee '<login>': authorized on MetaQuotes-Demo") is not Kind.AUTHORISED

    def test_another_expert(self):
        assert kind(GUARDIAN) is None
        assert kind(FORCE_REMOVED) is None

    def test_windows_own_build_is_not_the_terminals(self):
        assert kind(START[3]) is None

    def test_an_update_that_is_only_available_does_not_run(self):
        assert [kind(text) for text in UPDATE[:3]] == [None, None, None]

    def test_a_launch_without_ini_does_not_mean_that_ours_was_read(self):
        assert kind("RK\t0\t03:02:27.992\tTerminal\tlaunched with /skipupdate:abc /portable") is None

    @given(st.text(max_size=300))
    def test_junk_says_nothing_and_never_raises(self, junk: str):
        for text in (junk, f"GL\t0\t18:38:55.562\tNetwork\t{junk}", f"GL\t0\t{junk}\tNetwork\t'{LOGIN}': {junk}"):
            found = fact(Line(DAY, text), Expected(login=LOGIN, server="MetaQuotes-Demo"))
            assert found is None or found.kind is not Kind.AUTHORISED


class TestWhatTheLinesSay:
    @pytest.mark.parametrize(("server", "text"), AUTHORISED.items(), ids=AUTHORISED)
    def test_authorised_on_every_servers_name_seen(self, server: str, text: str):
        found = said(text, server=server)
        assert found is not None
        assert (found.kind, found.text) == (Kind.AUTHORISED, server)

    def test_the_ping_of_an_authorisation(self):
        found = said(AUTHORISED["Capital.ComMena-Demo"], server="Capital.ComMena-Demo")
        assert found is not None
        assert found.ping_ms == 130.83

    def test_a_server_given_as_an_address_is_named_otherwise_in_the_journal(self):
        assert kind(AUTHORISED["MetaQuotes-Demo"], server="192.168.0.1:443") is Kind.AUTHORISED

    def test_synchronised_with_what_it_holds(self):
        found = said(SYNCHRONISED)
        assert found is not None
        assert (found.kind, found.positions, found.orders) == (Kind.SYNCHRONISED, 0, 0)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (ENABLED, Kind.TRADING_ENABLED),
            (ENABLED_DEMO, Kind.TRADING_ENABLED),
            (INVESTOR, Kind.INVESTOR),
            (BY_SERVER, Kind.TRADING_DISABLED),
            (INVALID, Kind.REFUSED),
            (COMMON_ERROR, Kind.REFUSED),
            (NO_SERVICE, Kind.REFUSED),
            (NO_CONNECTION, Kind.NO_CONNECTION),
            (DISCONNECTED, Kind.DISCONNECTED),
            (SCANNING, Kind.NETWORK),
            (BETTER, Kind.NETWORK),
            (ALGO_ON, Kind.ALGO_ENABLED),
            (ALGO_OFF, Kind.ALGO_DISABLED),
            (START[0], Kind.FROM_INI),
            (LAUNCHED, Kind.FROM_INI),
            (SHUTDOWN, Kind.STOPPED),
            *zip(UPDATE[3:], (Kind.UPDATING, Kind.UPDATING, Kind.UPDATING, Kind.UPDATED), strict=True),
        ],
    )
    def test_each_real_line(self, text: str, expected: Kind):
        assert kind(text) is expected

    def test_a_lost_connection(self):
        assert kind(LOST, server="ICMarketsSC-Demo") is Kind.CONNECTION_LOST

    def test_refusals_and_reasons_in_their_own_words(self):
        assert [said(text).text for text in (INVALID, NO_SERVICE, ALGO_OFF)] == [
            "Invalid account",
            "Service is not available",
            "because the account has been changed",
        ]

    @pytest.mark.parametrize(("text", "build"), [(START[1], 3683), (START[2], 5836), (START[6], 6090)])
    def test_the_build_that_started_under_any_brokers_brand(self, text: str, build: int):
        found = said(text)
        assert found is not None
        assert (found.kind, found.build) == (Kind.STARTED, build)

    def test_the_ini_that_was_read(self):
        assert said(START[0]).text == r"C:\work\job.ini"
        assert said(LAUNCHED).text == r"C:\MT5PortableRepairLane\Config\a3_arm_attach_startup.ini"

    def test_our_own_expert_loaded_removed_and_failed(self):
        assert kind(GUARDIAN, expert="AccountGuardian") is Kind.EXPERT_LOADED
        assert kind(FORCE_REMOVED, expert=r"Bots\TradeForce") is Kind.EXPERT_REMOVED
        found = said(FORCE_FAILED, expert="TradeForce")
        assert found is not None
        assert (found.kind, found.text) == (
            Kind.EXPERT_FAILED,
            "TradeForce failed with code 0 (symbol synchronization timeout)",
        )

    def test_the_time_is_the_files_day_and_the_lines_local_time(self):
        assert said(INVALID).at == datetime(2023, 4, 27, 18, 52, 36, 729000).timestamp()
        assert said(COMMON_ERROR).at == datetime(2023, 4, 27, 14, 46, 34).timestamp()

    def test_a_reason_is_made_fit_to_print(self):
        found = said(
            "LP\t2\t18:52:36.729\tNetwork\t'<login>': authorization on MetaQuotes-Demo failed (a\x1b[31m\u202eb)"
        )
        assert found is not None
        assert found.text.isprintable()
