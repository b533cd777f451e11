"""Lines of the journals of real terminals, byte for byte but for the accounts, which were masked and are put back here.

Of some only the source and the message came down to us; their first columns are borrowed from another line. The words
of COMMON_ERROR, NO_SERVICE and NO_CONNECTION are a project's and not seen by us. None is what our paper terminal
writes: that it writes such lines is for its own tests to show.
"""

from __future__ import annotations

from farm.agent.journal import Expected, Kind, Line, fact

LOGIN = 5000001
DAY, NEXT_DAY = "20230427", "20230428"

START = (
    'IK\t0\t20:03:55.546\tStartup\tsuccessfully initialized from start config "C:\\work\\job.ini"',
    "EP\t0\t18:38:54.197\tTerminal\tMetaTrader 5 x64 build 3683 started for MetaQuotes Software Corp.",
    "NS\t0\t21:00:45.684\tTerminal\tMetaTrader 5 x64 build 5836 started for MetaQuotes Ltd.",
    "GE\t0\t21:00:45.685\tTerminal\tWindows 10 build 19043 on Wine 9.0 Linux ..., 3 / 7 Gb memory, 20 / 62 Gb disk, "
    "admin, GMT+3",
    "OL\t0\t03:02:27.992\tTerminal\tC:\\MT5PortableRepairLane",
    "RK\t0\t03:02:27.992\tTerminal\tlaunched with C:\\MT5PortableRepairLane\\Config\\a3_arm_attach_startup.ini",
    "OL\t0\t03:02:27.992\tTerminal\tOANDA MetaTrader 5 x64 build 6090 started",
)
AUTHORISED = {
    "MetaQuotes-Demo": "GL\t0\t18:38:55.562\tNetwork\t'<login>': authorized on MetaQuotes-Demo through Access Point EU "
    "1 (ping: 44.17 ms, build 3683)",
    "Capital.ComMena-Demo": "JS\t0\t03:02:29.316\tNetwork\t'<login>': authorized on Capital.ComMena-Demo through "
    "Access Point 2 (ping: 130.83 ms, build 5800)",
    "EGlobalTrade-Classic": "GF\t0\t20:58:01.126\tNetwork\t'<login>': authorized on EGlobalTrade-Classic through "
    "Access Server UK1",
    "JustMarkets-Demo3": "MS\t0\t16:37:04.099\tNetwork\t'<login>': authorized on JustMarkets-Demo3 through UK6",
    # Of these two only the message is known.
    "DerivSVG-Server-03": "JS\t0\t03:02:29.316\tNetwork\t'<login>': authorized on DerivSVG-Server-03 through Access "
    "Server - South Africa 02",
    "Upcomers-Server": "JS\t0\t03:02:29.316\tNetwork\t'<login>': authorized on Upcomers-Server",
    # Of these only the servers' names are.
    "VantageInternational-Live 5": "JS\t0\t03:02:29.316\tNetwork\t'<login>': authorized on VantageInternational-Live 5 "
    "through Access Point 2 (ping: 130.83 ms, build 5800)",
    "FxPro-MT5 Demo": "JS\t0\t03:02:29.316\tNetwork\t'<login>': authorized on FxPro-MT5 Demo",
}
PREVIOUS = (
    "GR\t0\t18:38:55.563\tNetwork\t'<login>': previous successful authorization performed from <ip> on "
    "2023.04.27 17:20:53"
)
SYNCHRONISED = (
    "CN\t0\t18:38:55.740\tNetwork\t'<login>': terminal synchronized with MetaQuotes Software Corp.: 0 positions, 0 "
    "orders, 88 symbols, 0 spreads"
)
ENABLED = "LF\t0\t18:38:55.740\tNetwork\t'<login>': trading has been enabled - hedging mode"
ENABLED_DEMO = "LF\t0\t18:38:55.740\tNetwork\t'<login>': trading has been enabled, demo account - hedging mode"
INVESTOR = "LF\t0\t18:38:55.740\tNetwork\t'<login>': trading has been disabled - investor mode"
BY_SERVER = "ME\t0\t20:58:02.161\tNetwork\t'<login>': trading has been disabled - disabled on server"
INVALID = "LP\t2\t18:52:36.729\tNetwork\t'<login>': authorization on MetaQuotes-Demo failed (Invalid account)"
COMMON_ERROR = "OQ\t2\t14:46:34\tNetwork\t'<login>': authorization on MetaQuotes-Demo failed (Common error)"
SYNC_ERROR = "KD\t2\t14:46:34\tMetaQuotes-Demo\t'<login>': error sending synchronization command"
NO_SERVICE = (
    "CN\t2\t14:46:34.000\tNetwork\t'<login>': authorization on MetaQuotes-Demo failed (Service is not available)"
)
NO_CONNECTION = "CN\t2\t14:46:34.000\tNetwork\t'<login>': no connection to x.invalid:443"
LOST = "QK\t0\t16:27:29.512\tNetwork\t'<login>': connection to ICMarketsSC-Demo lost"
DISCONNECTED = "NR\t0\t18:39:01.765\tNetwork\t'<login>': disconnected from MetaQuotes-Demo"
SCANNING = "NR\t0\t18:39:01.765\tNetwork\t'<login>': scanning network for access points"
BETTER = (
    "NR\t0\t18:39:01.765\tNetwork\t'<login>': auto connecting to a better access point with 92% quality (previous: 71%)"
)
GUARDIAN = "GN\t0\t16:37:03.180\tExperts\texpert AccountGuardian (XAUUSD.ecn,M5) loaded successfully"
FORCE_FAILED = (
    "GN\t0\t16:37:03.180\tExperts\tinitializing of TradeForce (EURUSD,M1) failed with code 0 "
    "(symbol synchronization timeout)"
)
FORCE_REMOVED = "GN\t0\t16:37:03.180\tExperts\texpert TradeForce (EURUSD,M1) removed"
ALGO_ON = "GN\t0\t16:37:03.180\tExperts\tautomated trading is enabled"
ALGO_OFF = "GN\t0\t16:37:03.180\tExperts\tautomated trading is disabled because the account has been changed"
STOP = (
    "FP\t0\t18:39:01.739\tTerminal\texit with code 0",
    DISCONNECTED,
    "NN\t0\t18:39:01.836\tTerminal\tstopped with 0",
)
SHUTDOWN = "NN\t0\t18:39:01.836\tTerminal\tshutdown with 0"
UPDATE = (
    "EQ\t0\t18:40:16.624\tLiveUpdate\tnew version build 3732 (IDE: 3732, Tester: 3732) is available",
    "KJ\t0\t18:40:32.163\tLiveUpdate\t'mt5clw64' downloaded (35300 kb)",
    "MM\t0\t18:40:45.970\tLiveUpdate\tdownloaded successfully",
    'IG\t0\t18:41:11.446\tLiveUpdate\tstart "C:\\Users\\<user>\\AppData\\Roaming\\MetaQuotes\\Terminal\\<hash>\\'
    'liveupdate\\terminal64.exe" /update /path:"C:\\...\\MetaTrader5" /portable',
    "FS\t0\t18:41:13.694\tLiveUpdate\tupdating...",
    "LR\t0\t18:41:14.255\tLiveUpdate\t'C:\\...\\MetaTrader5\\terminal64.exe' updated",
    "JE\t0\t18:41:16.235\tLiveUpdate\tupdated successfully",
)
COMMUNITY = "GR\t2\t18:38:55.563\tMQL5.community\tauthorization failed"
LAUNCHED, STARTED = START[5], START[1]
REAL = (*START, *AUTHORISED.values(), PREVIOUS, SYNCHRONISED, ENABLED, ENABLED_DEMO, INVESTOR, BY_SERVER, INVALID)
REAL = (*REAL, COMMON_ERROR, SYNC_ERROR, NO_SERVICE, NO_CONNECTION, LOST, SCANNING, BETTER, GUARDIAN, FORCE_FAILED)
REAL = (*REAL, FORCE_REMOVED, ALGO_ON, ALGO_OFF, *STOP, SHUTDOWN, *UPDATE, COMMUNITY)


def line(text: str, *, login: int = LOGIN, day: str = DAY) -> Line:
    return Line(day, text.replace("<login>", str(login)))


def said(text: str, *, server: str = "MetaQuotes-Demo", expert: str = "BittenBridge", login: int | None = LOGIN):
    return fact(line(text), Expected(login=login, server=server, expert=expert))


def kind(text: str, **expected) -> Kind | None:
    found = said(text, **expected)
    return found.kind if found else None


def encoded(*texts: str, bom: bool = True) -> bytes:
    plain = "".join(f"{line(text).text}\r\n" for text in texts).encode("utf-16-le")
    return (b"\xff\xfe" if bom else b"") + plain
