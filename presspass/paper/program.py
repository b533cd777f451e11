"""Starting and stopping; what it is, is told in stripe.py."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from presspass.paper.billing import happen
from presspass.paper.book import Book, Knobs
from presspass.paper.server import Server
from presspass.paper.webhooks import carry

COURIERS = 4  # webhooks on their way at the same time; Stripe promises no order either
SAVE_SECONDS = 0.25


def keep(book: Book) -> None:
    """What happens by itself: the clock, and the file."""
    while True:
        time.sleep(SAVE_SECONDS)
        with book.lock:
            happen(book)
        try:
            book.save()
        except OSError as error:
            print(f"paper stripe cannot save: {error}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Stands in for Stripe. No money moves.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--data", type=Path, required=True, help="the file that keeps its state")
    parser.add_argument("--webhook", default="", help="where events are sent")
    parser.add_argument("--secret", default=os.environ.get("PAPER_STRIPE_SECRET", "whsec_paper"))
    parser.add_argument("--key", default=os.environ.get("PAPER_STRIPE_KEY", ""))
    chosen = parser.parse_args()
    book = Book(chosen.data, secret=chosen.secret, key=chosen.key, knobs=Knobs(webhook=chosen.webhook))
    try:
        book.load()
        server = Server(book, chosen.port)
    except (OSError, ValueError, KeyError) as error:
        print(f"paper stripe cannot start: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    stop = threading.Event()

    def asked(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    works: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(keep, (book,))] + [(carry, (book,))] * COURIERS
    for work, told in [*works, (server.serve_forever, (0.05,))]:
        threading.Thread(target=work, args=told, daemon=True).start()
    print(f"paper stripe on {book.base}", flush=True)
    stop.wait()
    server.shutdown()
    server.server_close()
    book.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
