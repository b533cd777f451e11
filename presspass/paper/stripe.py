"""Paper Stripe: stands in for Stripe wherever no real account is wanted. No money moves.

    python presspass/paper/stripe.py --port 0 --data FILE --webhook URL --secret whsec_...

It is a program of its own: it imports nothing of the project, nothing imports it, and it is spoken to only as the real
one is: by Stripe's SDK over HTTP, by a browser on its pay page and its billing portal, and by signed webhooks. It
listens on 127.0.0.1 alone. With --key (or PAPER_STRIPE_KEY) only that key is let in, else every sk_test_ key; the
secret may come from PAPER_STRIPE_SECRET.

It speaks the API that SDK 16.1 speaks, and refuses what Stripe refuses where that is known: unknown parameters, a
session that expires sooner than 30 minutes after Stripe's own clock, a reused idempotency key, a refund of more than
is left. A parameter that Stripe knows and this does not is refused too, so that nothing is believed to work that was
never tried. Known to be kinder than Stripe: a subscription carries its period beside its items' (Stripe: only the
items), and requests run one after another.

Knobs, JSON over HTTP; those of /_paper/knobs do not outlive the process:

    GET|POST /_paper/knobs                           how it misbehaves: the fields of book.Knobs
    POST /_paper/sessions/<id>/pay                   as the pay page does; {"payment_status": "unpaid"}: complete,
                                                     the money still to come; {"email": "..."}
    POST /_paper/subscriptions/<id>/renew            {"outcome": "paid"|"failed"}: retries the open invoice; when there
                                                     is none, bills the next period
    POST /_paper/subscriptions/<id>/end_period       now: ended if it was to be cancelled, else billed by the card
    POST /_paper/subscriptions/<id>/give_up          {"status": "canceled"|"unpaid"}: the last retry failed
    POST /_paper/charges/<id>/dispute                the customer's bank takes the money back
    POST /_paper/advance                             {"seconds": 1800}: moves the clock; what is due then happens now
    POST /_paper/release                             {"order": "given"|"reversed"|"shuffled", "events": [ids]}: sends
                                                     what waits, one after another, held or not
    GET  /_paper/deliveries                          every attempt at a webhook, and what still waits
    POST /_paper/reset                               forgets everything
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # Beside this file, its own name would hide Stripe's SDK and its modules could not be found by their package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    runpy.run_module("presspass.paper.program", run_name="__main__")
