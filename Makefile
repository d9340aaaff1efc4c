# Everything a person does with Markstream. `make help` lists it. Needs python3.11 or newer with venv, and make.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
# One environment; a larger set contains the smaller ones.
RUNTIME := $(VENV)/.installed-runtime
LAPTOP := $(VENV)/.installed-laptop
TEST := $(VENV)/.installed-test
PIP_INSTALL := $(RUN) pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r
# Extras stay in the names: an older pip (23.2) does not see that `coverage[toml]` is pinned by `coverage`, and refuses to
# install anything as soon as a newer one is out.
UV_COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-emit-index-url --no-header --no-annotate --upgrade
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install run test test-faults test-deep soak bench lint types imports check status \
	start-market-data start-execution-gateway start-simulator fetch-bars import-fills export-fills adjust parity \
	lock clean

help: ## List these targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 26
	@echo
	@echo 'Arguments go through ARGS, for example: make run ARGS="--replay FILE --speed 10"'

install: $(LAPTOP) ## Install what `make run` needs into .venv, and do nothing else

run: $(LAPTOP) ## Run everything here: Redis, market data, P&L; Alpaca when keys are set, else a simulator
	@$(RUN) scripts.run_local $(ARGS)

status: $(LAPTOP) ## Show services, link, feed and positions on one screen (ARGS="--json" for machines)
	@$(RUN) scripts.status $(ARGS)

start-market-data: $(RUNTIME) ## Start the market data service (port 8004) on your own Redis
	@exec $(RUN) apps.market_data_service.main $(ARGS)

start-execution-gateway: $(RUNTIME) ## Start the execution gateway (port 8002) on your own Redis
	@exec $(RUN) apps.execution_gateway.main $(ARGS)

start-simulator: $(LAPTOP) ## Start the Alpaca simulator (port 8765)
	@exec $(RUN) apps.alpaca_simulator.main $(ARGS)

fetch-bars: $(RUNTIME) ## Fetch the daily bars that closing prices come from (ARGS="--verify 10" compares)
	@$(RUN) scripts.fetch_daily_bars $(ARGS)

import-fills: $(RUNTIME) ## Import fills from a CSV file, all or none (ARGS="fills.csv --dry-run" only checks)
	@$(RUN) scripts.import_fills $(ARGS)

export-fills: $(RUNTIME) ## Write the fills as CSV that can be imported again (ARGS="fills.csv")
	@$(RUN) scripts.export_fills $(ARGS)

adjust: $(RUNTIME) ## Record a split, rename, dividend, fee or transfer (ARGS="split NVDA 10 1 --date 2024-06-10")
	@$(RUN) scripts.adjust $(ARGS)

parity: $(RUNTIME) ## Set our figures beside the Alpaca account's own, and say what every difference is made of
	@$(RUN) scripts.parity $(ARGS)

test: $(TEST) ## Run the fast tests, with coverage
	@echo "Testing against real parts: Redis, sockets, browserless HTTP, files (about 8 minutes on two cores)"
	@rm -f .coverage .coverage.*
	@$(RUN) pytest -n 3 --dist worksteal -m "not faults" --cov --cov-report= $(ARGS)
	@if [ -z '$(ARGS)' ]; then \
		$(RUN) coverage report --skip-covered --fail-under=90 && \
		$(RUN) coverage report --skip-covered --fail-under=95 --include="$$($(RUN) tests.pure_modules)"; \
	fi

test-faults: $(TEST) ## Run the slower tests: whole stacks, processes killed and frozen
	@echo "Breaking whole stacks of real processes (about 8 minutes: most of it is waiting)"
	@$(RUN) pytest -n 4 --dist loadfile -m faults $(ARGS)

test-deep: $(TEST) ## Run the property tests with many more examples, and 300,000 spoiled frames
	@$(RUN) pytest -n 2 --hypothesis-profile=deep -m hypothesis $(ARGS)

soak: $(TEST) ## Inject faults at random and check from outside (ARGS="--minutes 10 --seed 1")
	@$(RUN) tests.soak.run $(ARGS)

bench: $(TEST) ## Measure our quote path beside the record's own, and the P&L endpoint
	@$(RUN) benchmarks.run $(ARGS)

lint: $(TEST) ## Check style and formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(TEST) ## Check types
	@$(BIN)/mypy

imports: $(TEST) ## Check who imports whom
	@$(BIN)/lint-imports

check: lint types imports test ## All that gates a change

lock: ## Pin the dependencies anew (needs uv on PATH)
	$(UV_COMPILE) pyproject.toml -o requirements/runtime.txt
	$(UV_COMPILE) --extra laptop pyproject.toml -o requirements/laptop.txt
	$(UV_COMPILE) --extra laptop --extra test pyproject.toml -o requirements/test.txt

clean: ## Remove the environment and all that was made here, the demo included
	rm -rf $(VENV) var/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "Markstream needs Python 3.11 or newer; none was found on PATH." >&2; exit 1; fi
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) lacks venv. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Creating the environment in $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV)

$(RUNTIME): requirements/runtime.txt | $(BIN)/python
	@echo "Installing the services' libraries (once; about a minute)"
	@$(PIP_INSTALL) requirements/runtime.txt
	@touch $(RUNTIME)

$(LAPTOP): requirements/laptop.txt | $(BIN)/python
	@echo "Installing the services, an embedded Redis and the simulator (once; about a minute)"
	@$(PIP_INSTALL) requirements/laptop.txt
	@touch $(RUNTIME) $(LAPTOP)

$(TEST): requirements/test.txt | $(BIN)/python
	@echo "Installing the services and what tests them (once; about a minute)"
	@$(PIP_INSTALL) requirements/test.txt
	@touch $(RUNTIME) $(LAPTOP) $(TEST)
