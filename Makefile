# What there is to do here; `make` alone says it.

VENV := .venv
BIN := $(VENV)/bin
UV := 0.13.8
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/pip install -qq --disable-pip-version-check
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

.PHONY: help setup page dev test check chaos bench fmt lock

help: ## say what there is to do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/installed ## make the virtual environment; again only when the requirements change

page: ## build the web client, where Node 20 is there; again only when it changed
	@scripts/build-page.sh

dev: setup ## serve everything on http://127.0.0.1:8080 (PORT changes it) with nothing to configure
	@scripts/build-page.sh & exec $(BIN)/recado dev

test: setup page ## run every test
	$(BIN)/pytest

check: setup page ## run all that a change must pass: format, lint, types, import rules, deployment, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	scripts/build-page.sh check
	scripts/check-deployment.sh
	$(BIN)/pytest

chaos: setup ## break the running system in every way and see that nothing is lost (docs/durability.md says how to choose)
	$(BIN)/python -m tests.chaos $(SUITE) --seed $(or $(SEED),1) --size $(or $(SIZE),ci) $(if $(CHAOS_LOG),--log $(CHAOS_LOG))

bench: setup ## measure what a conversation costs against others (docs/performance.md; FIGURES="turns cold" for some)
	$(BIN)/python -m benchmarks $(FIGURES)

fmt: setup ## put the code into its format
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: setup ## resolve pyproject.toml into both requirements files (ARGS=--upgrade takes the newest of everything)
	$(LOCK) $(ARGS) --group dev -o requirements-dev.txt
	$(LOCK) $(ARGS) --constraint requirements-dev.txt -o requirements.txt

# uv takes seconds; where it has no wheel or cannot reach its index (it reads no pip.conf), pip takes a minute.
# Both compile what they install: without that everything starts three times slower.
$(VENV)/installed: requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "Recado needs Python 3.11 or newer, and none is on the PATH: install it," \
		"or name it with make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing into $(VENV): once, in about half a minute"
	@$(PYTHON) -m venv $(VENV)
	@{ $(PIP) --only-binary :all: uv==$(UV) && \
		VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode requirements-dev.txt; } || \
		$(PIP) -r requirements-dev.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@
