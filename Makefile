# Needs make and Python 3.11 or newer; everything else is installed into .venv from requirements/dev.lock.

PYTHON ?=
VENV ?= .venv
PORT ?= 8000
DATA_DIR ?= var
SLOTS ?= 20
SEEDS ?= 10000
FIRST ?= 1
HOSTS ?= 1
DIST ?= dist
BIN := $(VENV)/bin
CODE := bitten_portal farm presspass benchmarks deploy tests manage.py
QUICK := not postgres and not redis and not browser
# Tools that load the settings without running them get the production example's.
EXAMPLE := ENV_FILE=.env.example DATABASE_URL=sqlite://:memory:

.PHONY: help install run manage test check format lock chaos soak simulate bench-clone bench-signup bench-recycle bench-golive bench-fleet wheel clean

help:  ## Say what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1	/p' Makefile | awk -F'\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'

install:  ## Make .venv, or bring it up to date with the lock
	@requirements/install.sh $(VENV) requirements/dev.lock $(PYTHON)

# Through the environment, so that the folder's name may hold blanks and what else a shell would read.
run manage: export DATA_DIR := $(DATA_DIR)

run: install  ## Run everything on this machine (PORT=8000 DATA_DIR=var SLOTS=20 HOSTS=1)
	@exec $(BIN)/python -m bitten_portal.stack --port $(PORT) --data-dir "$$DATA_DIR" --slots $(SLOTS) --hosts $(HOSTS)

manage: install  ## Run a Django command on what `make run` made (C="recycle_idle --dry-run")
	@exec $(BIN)/python -m bitten_portal.stack --data-dir "$$DATA_DIR" manage $(C)

test: install  ## Test with what is on this machine (T=tests/farm for a part)
	@status=0; $(BIN)/python -m pytest -q -n auto --maxprocesses 4 -m "$(QUICK)" $(T) || status=$$?; \
	echo "Not run: tests marked postgres, redis, browser. To run all: DATABASE_URL=postgres://… REDIS_URL=redis://… $(BIN)/python -m pytest (browser needs Chromium)"; \
	exit $$status

check: install  ## Format, lint, types, layers, migrations
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(EXAMPLE) $(BIN)/mypy $(CODE)
	$(EXAMPLE) $(BIN)/lint-imports
	$(EXAMPLE) $(BIN)/python manage.py makemigrations --check --dry-run
	ENV_FILE=.env.example $(BIN)/python manage.py check --deploy

format: install  ## Put the code into its form
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

lock: install  ## Resolve requirements/*.txt anew into the locks
	@set -e; for name in base production host dev uv; do \
		$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
			--custom-compile-command "make lock" requirements/$$name.txt -o requirements/$$name.lock; \
	done

bench-clone: install  ## Measure clones against copytree (ARGS="--mb 350 --files 2000")
	@$(BIN)/python -m benchmarks.clone $(ARGS)

bench-signup: install  ## Measure signups on a stack of its own
	@$(BIN)/python -m benchmarks.signup $(ARGS)

bench-recycle: install  ## Measure recycle_idle among a million at rest, on PostgreSQL
	@$(BIN)/python -m benchmarks.recycle $(ARGS)

bench-golive: install  ## Measure from the payment to the live terminal on a stack of its own
	@$(BIN)/python -m benchmarks.golive $(ARGS)

bench-fleet: install  ## Measure a survey round of 200 hosts, and the loss of one, on PostgreSQL
	@$(BIN)/python -m benchmarks.fleet $(ARGS)

wheel: install  ## Build the host's agent as a wheel (DIST=dist)
	@cd deploy/agent && $(abspath $(BIN))/python -m hatchling build -t wheel -d "$(abspath $(DIST))"

chaos: install  ## Break everything while people sign up and go live (CHAOS_SEED CHAOS_MINUTES=10 CHAOS_SCALE=4)
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

soak: install  ## All cores busy and every process paused in turn: nothing may be given up (SOAK_MINUTES=10)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

simulate: install  ## Play random schedules of portal, hosts, clocks and network (SEEDS=10000 FIRST=1)
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

clean:  ## Remove .venv and caches; what `make run` made stays in var/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
