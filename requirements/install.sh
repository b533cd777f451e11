#!/bin/sh
# Bring a virtual environment up to date with a lock file:  install.sh VENV LOCK [PYTHON]
# Does nothing if that lock was the last one installed. Needs Python 3.11 or newer, and nothing else.
set -eu
venv=$1 lock=$2 python=${3:-}
here=$(dirname "$0")

if cmp -s "$lock" "$venv/installed.lock" && "$venv/bin/python" -c '' 2>/dev/null; then exit 0; fi

say() { echo "$@" >&2; }
enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ -n "$python" ]; then
    enough "$python" || { say "PYTHON=$python is not a Python 3.11 or newer."; exit 1; }
elif ! enough "$venv/bin/python"; then
    for python in python3.13 python3.12 python3.11 python3 python ''; do
        [ -z "$python" ] || ! enough "$python" || break
    done
    [ -n "$python" ] || { say "No Python 3.11 or newer was found. Install one, or name it: make PYTHON=/path/to/python"; exit 1; }
fi

if ! enough "$venv/bin/python"; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        say "$python cannot make virtual environments: its ensurepip is missing. Install it (Debian, Ubuntu: apt-get install python3-venv) and run make again."
        exit 1
    fi
    say "Making $venv with $("$python" --version)."
    "$python" -m venv --clear "$venv"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
say "Installing $lock."
pip_uv() { "$venv/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r "$here/uv.lock"; }
uv_lock() { "$venv/bin/uv" pip install --quiet --system-certs --python "$venv/bin/python" --require-hashes -r "$lock"; }
if ! { pip_uv && uv_lock; } 2>/dev/null; then
    say "uv cannot do it here; pip does the same, slower."
    "$venv/bin/python" -m pip install --quiet --require-hashes -r "$lock"
fi
cp "$lock" "$venv/installed.lock"
