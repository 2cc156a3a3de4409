# Needs make and Python 3.11 or newer, nothing else. `make` alone lists what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

PB := app/taskrunner/wire/pb
PROTOS := $(wildcard proto/taskrunner/v1/*.proto)
# What meets the database is tested a second time on the oldest PostgreSQL that we support, where that is installed.
OLDEST := /usr/lib/postgresql/15/bin
ON_OLDEST := $(addprefix tests/,store scheduler) $(addprefix tests/api/test_,$(addsuffix .py,bulk imports listing stats))
# These start and kill real processes and watch the clock: each file is one row after the other, two files at once.
ALONE := tests/faults tests/system

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.PHONY: help run test test-faults soak mutants check fix proto lock bench bench-peers bench-dashboard screenshots bench-growth build clean python

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ── two commands ──

run: $(VENV)/.run ## start everything: embedded PostgreSQL, API, scheduler, worker; dashboard on http://localhost:8080
	@exec $(BIN)/python -c "$$FOREGROUND" $(BIN)/taskrunner

test: check ## check, then the whole suite on real PostgreSQL
ifneq ($(wildcard $(OLDEST)/postgres),)
	@echo "── on $$($(OLDEST)/postgres --version): $(ON_OLDEST)"
	TASKRUNNER_TEST_PG_BIN=$(OLDEST) $(BIN)/pytest --numprocesses 2 $(ON_OLDEST)
endif
	@echo "── real processes, killed, stopped and cut off"
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ALONE)
	@echo "── all the rest"
	$(BIN)/pytest --numprocesses 2 $(addprefix --ignore=,$(ALONE))

# ── for developers ──

test-faults: $(VENV)/.dev ## every row of the acceptance table of faults, the slow ones, too; about 20 minutes
	$(BIN)/pytest -m "faults or slow" tests

MINUTES ?= 10
soak: $(VENV)/.dev ## faults at random on one cluster for MINUTES=10, from a printed seed (SEED=… gives the same draws again)
	PYTHONPATH=app:tests $(BIN)/python -m faults.soak --minutes $(MINUTES) $(addprefix --seed ,$(SEED))

mutants: $(VENV)/.dev ## take each safeguard out of a copy of the tree and see that the suite notices (ONLY="name …"); about 10 minutes
	PYTHONPATH=app:tests $(BIN)/python -m mutants.run $(ONLY)

check: $(VENV)/.dev ## format, lint, types, walls between the rooms, generated code
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call generate,$$fresh) && diff -r -x __pycache__ "$$fresh" $(PB) \
		|| { echo "$(PB) is not what proto/ says: run 'make proto'" >&2; exit 1; }

fix: $(VENV)/.dev ## format the code and fix what can be fixed by itself
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

proto: $(VENV)/.dev ## generate the messages from proto/
	rm -rf $(PB)
	mkdir -p $(PB)
	@$(call generate,$(PB))

lock: $(VENV)/.dev ## pin every dependency anew: requirements.txt, requirements-dev.txt
	$(LOCK) --upgrade --extra embedded --extra otel --group build pyproject.toml --output-file requirements.txt
	$(LOCK) --upgrade --extra embedded --extra otel --group dev --constraint requirements.txt pyproject.toml --output-file requirements-dev.txt

bench: $(VENV)/.dev ## every figure of the README's second table, about 7 minutes on an idle machine
	$(BIN)/python tests/bench/run.py

bench-peers: $(VENV)/.dev ## draining and the time until the start, beside graphile-worker, pgqueuer and procrastinate; needs node and npm
	$(BIN)/python tests/bench/run.py --peers --json .cache/bench/peers.json

bench-dashboard: $(VENV)/.dev ## each view of the dashboard with 1,000,000 finished tasks, and what an open page costs; needs chromium
	PYTHONPATH=app:tests $(BIN)/python -m e2e.measure

screenshots: $(VENV)/.dev ## docs/pictures, of a shop's tasks on a whole service, about 20 minutes; needs chromium
	PYTHONPATH=app:tests $(BIN)/python -m e2e.screenshots

bench-growth: $(VENV)/.dev ## what a task costs beside 10,000,000 rows, 500 queues, 200 workers, an old snapshot, with curves; about 30 minutes
	$(BIN)/python tests/bench/growth.py --json .cache/bench/growth.json $(addprefix --only ,$(ONLY)); status=$$?; \
	$(BIN)/python tests/bench/curves.py .cache/bench/growth.json docs/pictures/growth.svg; exit $$status

build: $(VENV)/.dev ## wheel and sdist into dist/
	$(BIN)/python -m hatchling build

clean: ## remove what was built; the data directory stays
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find app tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ── how ──

# The environment holds what the lock says and nothing else: it is made anew when the lock changes. The dev lock contains the runtime's.
$(VENV)/.run: requirements.txt | python
	$(call environment,$<)
	@touch $@

$(VENV)/.dev: requirements-dev.txt | python
	$(call environment,$<)
	@touch $(VENV)/.run $@

define environment
	@echo "making $(VENV) from $(1)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --require-hashes --requirement $(1)
	@$(PIP) install --no-deps --no-build-isolation --editable .
endef

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "taskrunner needs Python 3.11 or newer; name yours, as in: make run PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# The plugin formats what it writes with the ruff of $(BIN) and the rules of pyproject.toml.
generate = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_betterproto2_out=$(1) \
	--python_betterproto2_opt=client_generation=async --python_betterproto2_opt=server_generation=async \
	--python_betterproto2_opt=google_protobuf_descriptors $(PROTOS)

# On Ctrl-C the terminal signals make too, and make would end with "Error 130" however cleanly taskrunner stopped. So taskrunner takes the
# terminal's foreground for itself, where there is one: it alone gets the signal, and make returns what it returns.
define FOREGROUND
import os, signal, sys
try:
    terminal = os.open("/dev/tty", os.O_RDWR)
    if os.tcgetpgrp(terminal) == os.getpgrp():
        for stops in (signal.SIGTTOU, signal.SIGTSTP):
            signal.signal(stops, signal.SIG_IGN)
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
except OSError:
    pass
os.execv(sys.argv[1], sys.argv[1:])
endef
export FOREGROUND
