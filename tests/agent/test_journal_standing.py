"""What facts, and silence, add up to."""

from __future__ import annotations

from datetime import datetime

import pytest

from farm.agent.journal import Fact, Kind, Standing, decided_without_network, fold
from farm.agent.protocol import Connection, Refusal
from tests.agent.real_lines import (
    ALGO_OFF,
    ALGO_ON,
    AUTHORISED,
    BY_SERVER,
    COMMON_ERROR,
    DISCONNECTED,
    ENABLED,
    FORCE_FAILED,
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
    STARTED,
    STOP,
    SYNCHRONISED,
    UPDATE,
    said,
)


def standing(*texts: str, login: int | None = LOGIN, expert: str = "BittenBridge") -> Standing:
    now = Standing.begin(login=login)
    for text in texts:
        if found := said(text, expert=expert, login=login):
            now = fold(now, found)
    return now


IN = AUTHORISED["MetaQuotes-Demo"]
UP = (STARTED, LAUNCHED, IN, PREVIOUS, SYNCHRONISED, ENABLED)
BEGAN = 1_700_000_000.0


def undated(*texts: str, login: int | None = LOGIN) -> Standing:
    """A standing by lines whose times cannot be read, so that only the deadline's own clock counts."""
    now = Standing.begin(login=login)
    for text in texts:
        found = said(text, login=login)
        if found:
            now = fold(now, Fact(found.kind, None, found.text))
    return now


def after(seconds: float, before: Standing, *, answer_seconds: float | None = None) -> Standing:
    return decided_without_network(
        before, started_at=BEGAN, now=BEGAN + seconds, seconds=60, answer_seconds=answer_seconds
    )


class TestStanding:
    def test_before_any_line_nothing_is_known(self):
        assert standing().connection is Connection.UNKNOWN

    def test_started_but_not_in_is_connecting(self):
        found = standing(STARTED, LAUNCHED)
        assert (found.connection, found.ini_read, found.network_seen) == (Connection.CONNECTING, True, False)

    def test_the_whole_way_in(self):
        found = standing(*UP, GUARDIAN, ALGO_ON, expert="AccountGuardian")
        assert found.connection is Connection.CONNECTED
        assert (found.synchronized, found.trading, found.ini_read, found.expert_loaded) == (True, True, True, True)
        assert (found.algo_trading, found.refusal, found.build) == (True, Refusal.NONE, 3683)

    def test_since_when_it_is_connected(self):
        assert standing(*UP).since == datetime(2023, 4, 27, 18, 38, 55, 562000).timestamp()

    def test_an_account_for_looking_on_is_connected_and_refused_to_trade(self):
        found = standing(*UP[:-1], INVESTOR)
        assert found.connection is Connection.CONNECTED
        assert (found.trading, found.refusal, found.refusal_text) == (False, Refusal.INVESTOR, "investor mode")

    def test_trading_disabled_by_the_server_and_enabled_again(self):
        found = standing(*UP[:-1], BY_SERVER)
        assert (found.trading, found.refusal) == (False, Refusal.TRADING_DISABLED)
        assert standing(*UP[:-1], BY_SERVER, ENABLED).refusal is Refusal.NONE

    def test_an_invalid_account_is_refused_for_its_credentials(self):
        found = standing(STARTED, LAUNCHED, INVALID)
        assert found.connection is Connection.REFUSED
        assert (found.refusal, found.refusal_text) == (Refusal.CREDENTIALS, "Invalid account")

    def test_a_refusal_in_unknown_words_keeps_them(self):
        found = standing(STARTED, INVALID.replace("Invalid account", "Account disabled"))
        assert (found.connection, found.refusal) == (Connection.REFUSED, Refusal.OTHER)
        assert found.refusal_text == "Account disabled"

    @pytest.mark.parametrize("text", [COMMON_ERROR, NO_SERVICE, NO_CONNECTION])
    def test_what_the_terminal_tries_again_by_itself_is_no_verdict_yet(self, text: str):
        assert standing(STARTED, LAUNCHED, text).connection is Connection.CONNECTING
        assert standing(STARTED, LAUNCHED, text, IN).connection is Connection.CONNECTED
        assert standing(STARTED, LAUNCHED, text, IN).refusal_text == ""

    def test_a_lost_connection_and_its_return(self):
        lost = LOST.replace("ICMarketsSC-Demo", "MetaQuotes-Demo")
        assert standing(*UP, lost).connection is Connection.LOST
        assert not standing(*UP, lost).synchronized
        assert standing(*UP, lost, NO_CONNECTION).connection is Connection.LOST
        assert standing(*UP, lost, IN, SYNCHRONISED).connection is Connection.CONNECTED

    def test_a_password_changed_while_connected_is_a_refusal(self):
        assert standing(*UP, DISCONNECTED, INVALID).connection is Connection.REFUSED

    def test_a_failure_to_ask_again_does_not_take_a_refusal_back(self):
        found = standing(STARTED, INVALID, NO_CONNECTION)
        assert (found.refusal, found.refusal_text) == (Refusal.CREDENTIALS, "Invalid account")

    def test_a_terminal_that_stopped_is_not_connected(self):
        found = standing(*UP, *STOP)
        assert (found.connection, found.synchronized, found.trading) == (Connection.UNKNOWN, False, None)

    def test_a_refusal_is_still_known_after_the_stop(self):
        assert standing(STARTED, INVALID, *STOP).refusal is Refusal.CREDENTIALS

    def test_an_update_runs_until_the_terminal_is_back_and_leaves_its_mark(self):
        assert standing(*UP, *UPDATE[:3]).updating is False
        assert standing(*UP, *UPDATE[:4]).updating is True
        assert standing(*UP, *UPDATE).updating is True
        back = standing(*UP, GUARDIAN, *UPDATE, STARTED, expert="AccountGuardian")
        assert (back.updating, back.updated, back.expert_loaded) == (False, True, False)

    def test_an_expert_that_was_removed_or_failed_is_not_loaded(self):
        gone = GUARDIAN.replace("loaded successfully", "removed")
        assert not standing(*UP, GUARDIAN, gone, expert="AccountGuardian").expert_loaded
        assert not standing(*UP, FORCE_FAILED, expert="TradeForce").expert_loaded

    def test_automated_trading_switched_off_is_seen(self):
        assert standing(*UP, ALGO_ON, ALGO_OFF).algo_trading is False

    def test_without_account_only_the_start_is_told(self):
        found = standing(STARTED, LAUNCHED, *STOP, STARTED, login=None)
        assert (found.connection, found.started, found.ini_read) == (Connection.NO_ACCOUNT, True, True)

    @pytest.mark.parametrize("change", [{"connection": "fine"}, {"refusal": "no"}, {"more": 1}])
    def test_what_is_no_standing_is_refused(self, change: dict):
        with pytest.raises(ValueError, match=r"not a|is not"):
            Standing.from_dict({**Standing().as_dict(), **change})


class TestSilence:
    def test_before_the_deadline_it_means_nothing(self):
        assert after(59, undated(STARTED, LAUNCHED)).connection is Connection.CONNECTING

    def test_no_network_line_at_all_means_that_the_server_is_unknown(self):
        found = after(60, undated(STARTED, LAUNCHED))
        assert (found.connection, found.refusal, found.since) == (
            Connection.REFUSED,
            Refusal.SERVER_UNKNOWN,
            BEGAN + 60,
        )

    def test_network_lines_without_a_verdict_mean_no_answer(self):
        assert after(60, undated(STARTED, LAUNCHED, SCANNING)).refusal is Refusal.NO_ANSWER

    def test_an_answer_may_be_given_more_time_than_the_first_word(self):
        seen = undated(STARTED, LAUNCHED, SCANNING)
        assert after(60, seen, answer_seconds=120).connection is Connection.CONNECTING
        assert after(120, seen, answer_seconds=120).refusal is Refusal.NO_ANSWER

    @pytest.mark.parametrize("text", [NO_CONNECTION, NO_SERVICE])
    def test_a_server_that_was_never_reached_is_unreachable(self, text: str):
        found = after(60, undated(STARTED, LAUNCHED, SCANNING, text))
        assert (found.connection, found.refusal) == (Connection.REFUSED, Refusal.SERVER_UNREACHABLE)

    def test_the_brokers_last_words_are_kept(self):
        found = after(60, undated(STARTED, LAUNCHED, COMMON_ERROR))
        assert (found.refusal, found.refusal_text) == (Refusal.OTHER, "Common error")

    @pytest.mark.parametrize(
        "texts",
        [(), (LAUNCHED,), (STARTED,), (STARTED, LAUNCHED, *STOP)],
        ids=["nothing", "not started", "ini not read", "stopped"],
    )
    def test_a_terminal_that_does_not_run_from_our_ini_says_nothing_of_the_server(self, texts: tuple[str, ...]):
        assert after(600, undated(*texts)).refusal is Refusal.NONE

    def test_the_relaunch_of_an_update_says_nothing_of_the_server(self):
        assert after(600, undated(STARTED, LAUNCHED, *UPDATE)).refusal is Refusal.NONE
        assert after(600, undated(STARTED, LAUNCHED, *UPDATE, STARTED)).refusal is Refusal.NONE

    def test_a_verdict_and_a_connection_are_left_as_they_are(self):
        for texts in ((STARTED, LAUNCHED, INVALID), UP, (*UP, DISCONNECTED)):
            before = undated(*texts)
            assert after(600, before) == before

    def test_without_account_there_is_nothing_to_wait_for(self):
        assert after(600, undated(STARTED, LAUNCHED, login=None)).connection is Connection.NO_ACCOUNT

    def test_a_terminal_that_started_again_is_given_its_time_again(self):
        again = fold(undated(STARTED, LAUNCHED, INVALID), Fact(Kind.STARTED, BEGAN + 50))
        assert after(70, again).connection is Connection.CONNECTING
        assert after(110, again).refusal is Refusal.SERVER_UNKNOWN

    def test_a_late_word_takes_it_back(self):
        decided = after(60, undated(STARTED, LAUNCHED))
        assert fold(decided, said(SCANNING)).connection is Connection.CONNECTING
        assert fold(decided, said(IN)).connection is Connection.CONNECTED
        assert fold(decided, said(IN)).refusal is Refusal.NONE
