"""Shells: parse, call one function of presspass.lifecycle, show what it says.

joining     the first page, sign-in links, signing out
terminal    the customer's terminal
staff       signing in to the admin
mailbox     mail as written to a folder, under `make run` only
refusals    403, 404, 429, 500 and a form without its token
"""

from presspass.views.refusals import csrf_failure, error_403, error_404, error_429, error_500

__all__ = ["csrf_failure", "error_403", "error_404", "error_429", "error_500"]
