"""Make a demo master: a template folder laid out like a real portable MetaTrader 5, with invented contents.

    python master.py TARGET [--files 1200] [--mb 40] [--seed 1]

Names and folders are the real ones; sizes keep the real proportions (the executables are the biggest part) and are
scaled so that the whole has the wanted number of files and megabytes. The same arguments give the same bytes. There is
no account in it. Beside it stands TARGET.servers.json: the names of the servers that can be reached from it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from pathlib import Path

SERVERS = ["MetaQuotes-Demo", "PaperBroker-Demo", "PaperBroker-Live"]
MADE_AT = 1_780_272_000  # 2026-06-01: modification times are part of "the same bytes"
BUILD = 5836

# Real sizes of build 5836, in bytes; scaled.
EXECUTABLES = {
    "terminal64.exe": 118_840_976,
    "MetaEditor64.exe": 109_082_688,
    "uninstall.exe": 23_312_560,
    "metatester64.exe": 21_221_584,
    "Terminal.ico": 410_598,
}
SETTINGS = {"servers.dat": 234_324, "agents.dat": 1_240, "terminal.lic": 15_892}
EMPTY_FOLDERS = ["Config/certificates", "MQL5/Files", "MQL5/Images", "Tester"]
SHARES = {"executables": 0.70, "history": 0.18, "rest": 0.12}

COMMON_INI = """\
[Common]
ProxyEnable=0
ProxyType=0
ProxyAddress=
ProxyAuth=
CertInstall=0
NewsEnable=0
EnableOpenCL=7
Services=4294967295
NewsLanguages=
Source=download.mql5.com
[Charts]
ProfileLast=Default
MaxBars=5000
PrintColor=0
SaveDeleted=0
TradeHistory=1
TradeLevels=1
PreloadCharts=0
[Experts]
AllowDllImport=0
Enabled=1
Account=0
Profile=0
Chart=0
Api=0
WebRequest=0
WebRequestUrl=
[Objects]
ShowPropertiesOnCreate=0
SelectOneClick=0
MagnetSens=10
[Email]
Enable=0
[Notification]
Enable=0
"""
TERMINAL_INI = f"""\
[Window]
Fullscreen=0
Type=1
[LiveUpdate]
LastBuild={BUILD}
LastTime={MADE_AT}
"""
ASSISTANT_INI = """\
[MCP.MetaTrader]
Enable=0
[MCP.MetaEditor]
Enable=0
"""
CHART = """\
<chart>
id=13{number:016d}
symbol={symbol}
period_type=1
period_size=1
digits=5
{expert}<window>
height=100.000000
objects=0
</window>
</chart>
"""
CHART_EXPERT = r"""<expert>
name=BittenBridge
path=Experts\BittenBridge.ex5
expertmode=1
</expert>
"""

PROFILES = {
    "Default": ["EURUSD", "GBPUSD", "USDCHF", "USDJPY"],
    "British Pound": ["EURGBP", "GBPCHF", "GBPJPY", "GBPUSD"],
    "Euro": ["EURCHF", "EURGBP", "EURJPY", "EURUSD"],
    "Market Overview": ["AUDUSD", "EURUSD", "GBPUSD", "USDJPY"],
    "Swiss Franc": ["CHFJPY", "EURCHF", "GBPCHF", "USDCHF"],
}
SYMBOL_SETS = ["forex.all", "forex.crosses", "forex.major"]
TEMPLATES = [
    "ADX",
    "BollingerBands",
    "Default",
    "MACD",
    "Momentum",
    "Popular",
    "RSI",
    "Stochastic",
    "Volumes",
    "Williams",
]
SOUNDS = ["alert", "alert2", "connect", "disconnect", "email", "expert", "news", "ok", "request", "stops", "tick"]
SOUNDS += ["timeout", "wait"]
HISTORY_SYMBOLS = ["EURUSD", "GBPUSD", "USDCHF", "USDJPY"]

# Folders of the standard library, each with its sources; programs among them stand compiled beside their source.
HEADERS = {
    "Include": "MovingAverages StdLibErr VirtualKeys",
    "Include/Arrays": "Array ArrayChar ArrayDouble ArrayFloat ArrayInt ArrayLong ArrayObj ArrayShort ArrayString List",
    "Include/Canvas": "Canvas Canvas3D CanvasDX DXBox DXBuffers DXInput DXMath DXMesh DXObject DXShader DXSurface",
    "Include/ChartObjects": "ChartObject ChartObjectPanel ChartObjectsArrows ChartObjectsBmpControls "
    "ChartObjectsChannels ChartObjectsElliott ChartObjectsFibo ChartObjectsGann ChartObjectsLines ChartObjectsShapes",
    "Include/Controls": "BmpButton Button CheckBox CheckGroup ComboBox DateDropList DatePicker Defines Dialog Edit "
    "Label ListView Panel Picture RadioButton RadioGroup Rect Scrolls SpinEdit Wnd WndClient WndContainer WndObj",
    "Include/Expert": "Expert ExpertBase ExpertMoney ExpertSignal ExpertTrade ExpertTrailing",
    "Include/Expert/Money": "MoneyFixedLot MoneyFixedMargin MoneyFixedRisk MoneyNone MoneySizeOptimized",
    "Include/Expert/Signal": "SignalAC SignalAMA SignalAO SignalBearsPower SignalCCI SignalDEMA SignalMA SignalMACD "
    "SignalRSI SignalRVI SignalSAR SignalStoch SignalTRIX SignalWPR",
    "Include/Expert/Trailing": "TrailingFixedPips TrailingMA TrailingNone TrailingParabolicSAR",
    "Include/Files": "File FileBin FilePipe FileTxt",
    "Include/Generic": "ArrayList HashMap HashSet LinkedList Queue RedBlackTree SortedMap SortedSet Stack",
    "Include/Indicators": "BillWilliams Custom Indicator Indicators Oscilators Series TimeSeries Trend Volumes",
    "Include/Math/Stat": "Beta Binomial Cauchy ChiSquare Exponential F Gamma Geometric Logistic Lognormal Math Normal "
    "Poisson T Uniform Weibull",
    "Include/Trade": "AccountInfo DealInfo HistoryOrderInfo OrderInfo PositionInfo SymbolInfo TerminalInfo Trade",
    "Include/WinAPI": "errhandlingapi fileapi handleapi libloaderapi memoryapi processenv sysinfoapi winapi winuser",
}
PROGRAMS = {
    "Experts/Advisors": "ExpertMACD ExpertMAMA ExpertMAPSAR ExpertMAPSARSizeOptimized",
    "Experts/Examples/ChartInChart": "ChartInChart",
    "Experts/Examples/Controls": "Controls",
    "Experts/Examples/Correlation Matrix 3D": "Correlation_Matrix_3D",
    "Experts/Examples/MACD": "MACD_Sample",
    "Experts/Examples/Moving Average": "Moving_Average",
    "Indicators/Examples": "Accelerator AD ADX ADXW Alligator AMA ASI ATR Awesome_Oscillator BB Bears Bulls "
    "BW-ZoneTrade CCI CHO CHV ColorBars ColorCandlesDaily ColorLine Custom_Moving_Average DEMA DeMarker DPO Envelopes "
    "Force_Index Fractals FrAMA Gator Heiken_Ashi Ichimoku MACD MarketFacilitationIndex MFI MI Momentum OBV OsMA "
    "ParabolicSAR Price_Channel PVT ROC RSI RVI StdDev Stochastic TEMA TRIX Ultimate_Oscillator VIDYA Volumes "
    "VROC W_AD WPR ZigZag",
    "Scripts/Examples/Canvas": "CanvasSample",
    "Scripts/Examples/Remnant 3D": "Remnant_3D",
    "Scripts/UnitTests/Generic": "TestArrayList TestHashMap TestHashSet TestLinkedList TestQueue TestStack",
}
FILLER = "MQL5/Include/Math/Alglib"  # the folder that grows with --files


def utf16(text: str) -> bytes:
    """As MetaTrader writes its own text files."""
    return b"\xff\xfe" + text.replace("\n", "\r\n").encode("utf-16-le")


def fixed_files() -> dict[str, bytes]:
    """The files whose contents mean something."""
    files = {
        "Config/common.ini": utf16(COMMON_INI),
        "Config/terminal.ini": utf16(TERMINAL_INI),
        "Config/assistant.ini": utf16(ASSISTANT_INI),
        "Config/hotkeys.ini": utf16(""),
        "Config/settings.ini": utf16("[Settings]\n" + "".join(f"Color{n}=0\n" for n in range(240))),
        "Config/metaeditor.ini": utf16("[Common]\nStandardLibrary=1\n"),
        "Config/community.ini": utf16("[Community]\n"),
        "Config/jupyter.ini": utf16("[Jupyter]\n"),
        "Bases/Default/symbols.raw": b"",
    }
    for profile, symbols in PROFILES.items():
        for number, symbol in enumerate(symbols, 1):
            expert = CHART_EXPERT if (profile, number) == ("Default", 1) else ""
            chart = CHART.format(number=number, symbol=symbol, expert=expert)
            files[f"Profiles/Charts/{profile}/chart{number:02d}.chr"] = utf16(chart)
        order = "".join(f"chart{number:02d}.chr\n" for number in range(1, len(symbols) + 1))
        files[f"Profiles/Charts/{profile}/order.wnd"] = utf16(order)
    for name in SYMBOL_SETS:
        files[f"Profiles/SymbolSets/{name}.set"] = utf16("".join(f"{symbol}\n" for symbol in HISTORY_SYMBOLS))
    for name in TEMPLATES:
        files[f"Profiles/Templates/{name}.tpl"] = utf16(CHART.format(number=0, symbol="EURUSD", expert=""))
    return files


def library_names(room: int) -> list[str]:
    """Sources and compiled programs of the standard library, as many as there is room for; our own EA always."""
    names = ["MQL5/Experts/BittenBridge.mq5", "MQL5/Experts/BittenBridge.ex5"]
    names += [f"MQL5/{folder}/{stem}.mqh" for folder, stems in HEADERS.items() for stem in stems.split()]
    for folder, stems in PROGRAMS.items():
        names += [f"MQL5/{folder}/{stem}.{end}" for stem in stems.split() for end in ("mq5", "ex5")]
    names += [f"{FILLER}/unit{number:04d}.mqh" for number in range(room - len(names))]
    return names[: max(room, 2)]


def spread(names: list[str], total: int, dice: random.Random) -> dict[str, int]:
    """Share `total` bytes out over the names, unevenly, as small files really are; every one gets some."""
    weights = [dice.lognormvariate(0.0, 1.0) for _ in names]
    scale = max(total, 0) / sum(weights)
    return {name: 64 + int(weight * scale) for name, weight in zip(names, weights, strict=True)}


def plan(files: int, total: int, dice: random.Random) -> tuple[dict[str, bytes], dict[str, int]]:
    """What the master holds: contents that are given, and sizes of those to invent."""
    given = fixed_files()
    real = sum(EXECUTABLES.values())
    sizes = {name: int(size * total * SHARES["executables"] / real) for name, size in EXECUTABLES.items()}
    sizes |= {f"Config/{name}": min(size, total // 100) for name, size in SETTINGS.items()}
    history = [f"Bases/Default/History/{symbol}/{year}.hcc" for symbol in HISTORY_SYMBOLS for year in (2023, 2024)]
    sizes |= {name: int(total * SHARES["history"] / len(history)) for name in history}
    sounds = [f"Sounds/{name}.wav" for name in SOUNDS]
    small = sounds + library_names(files - len(given) - len(sizes) - len(sounds))
    left = total - sum(sizes.values()) - sum(map(len, given.values())) - 64 * len(small)
    return given, sizes | spread(small, left, dice)


def content(name: str, size: int, dice: random.Random) -> bytes:
    """Invented bytes behind the mark that such a file begins with; sources are text."""
    if name.endswith((".mqh", ".mq5")):
        line = f"// {name}: a stand-in of the demo master, not the file of that name\r\n"
        return (line * (size // len(line) + 1)).encode()[:size]
    if name.endswith(".dat"):
        head = utf16("Copyright 2000-2026, MetaQuotes Ltd.")
    else:
        head = {".exe": b"MZ\x90\x00", ".wav": b"RIFF", ".ex5": b"EX-X"}.get(os.path.splitext(name)[1], b"")
    return (head + dice.randbytes(max(size - len(head), 0)))[: max(size, len(head))]


def build(folder: Path, *, files: int, mb: float, seed: int) -> int:
    """Write the whole master into a new folder; answers its bytes."""
    dice = random.Random(seed)
    given, sizes = plan(files, int(mb * 1_000_000), dice)
    contents = given | {name: content(name, size, dice) for name, size in sizes.items()}
    for name in {os.path.dirname(name) for name in contents} | set(EMPTY_FOLDERS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        path = folder / name
        path.write_bytes(data)
        os.utime(path, (MADE_AT, MADE_AT))
    return sum(map(len, contents.values()))


def make(target: Path, *, files: int, mb: float, seed: int) -> str:
    """Make the master under another name and rename it, so that nobody sees half of one; answers what to tell."""
    target.parent.mkdir(parents=True, exist_ok=True)
    servers = target.with_name(target.name + ".servers.json")
    if not servers.exists():
        servers.write_text(json.dumps(SERVERS) + "\n", encoding="utf-8")
    if target.exists():
        return f"{target}: already there, left as it is"
    beside = target.with_name(f".{target.name}.making-{os.getpid()}")
    try:
        size = build(beside, files=files, mb=mb, seed=seed)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    count = sum(len(names) for _, _, names in os.walk(target))
    return f"{target}: {count} files, {size / 1_000_000:.1f} MB"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, metavar="TARGET", help="the folder to make, such as Masters/BITTEN_MASTER")
    parser.add_argument("--files", type=int, default=1200, help="how many files (at least 150; default %(default)s)")
    parser.add_argument("--mb", type=float, default=40, help="how many megabytes (at least 1; default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other bytes (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.files < 150 or options.mb < 1:
        parser.error("a master has at least 150 files and 1 MB")
    try:
        print(make(options.target.absolute(), files=options.files, mb=options.mb, seed=options.seed))
    except OSError as error:
        print(f"can't make the master: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
