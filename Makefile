# What a person does here.  `make help` lists it.  Everything installs into $(VENV), nothing outside it.

PYTHON ?= python3
SEEDS ?= 20
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
	--python-version 3.11 --custom-compile-command 'make lock'
# But what measures runs alone.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 8 --dist worksteal
NPM_CI := npm ci --no-audit --no-fund --loglevel=error
NODE_PACKAGES := tests/js/node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help run test check style types imports verify demo simulate bench bench-catchup bench-ot lock system-packages clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

run: $(VENV)/.run ## the server, in the foreground (HOST, PORT and CRDT_STATE_STORE are honoured)
	@$(BIN)/crdt-state serve

demo: $(VENV)/.run ## three replicas, a server that is killed, and a table that shows they end equal
	@$(BIN)/crdt-state demo

simulate: $(VENV)/.test ## replicas in a simulated storm (SEEDS=10000; the same seed, the same history)
	@$(BIN)/crdt-state simulate --seeds $(SEEDS)

test: $(VENV)/.test $(NODE_PACKAGES) ## the tests, with a seeded sample of the long ones
	@$(BIN)/python -m pytest -q -m "not full" $(SIDE_BY_SIDE)

style: $(VENV)/.test ## formatting and lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(VENV)/.test ## strict types
	@$(BIN)/mypy

imports: $(VENV)/.test ## import directions and the owners of third-party packages
	@$(BIN)/lint-imports --config importlinter.toml

check: style types imports test ## all of the above: what CI runs

verify: $(VENV)/.test $(NODE_PACKAGES) bench demo ## every claim in full (about half an hour)
	@$(BIN)/python -m pytest -v -m "full and not alone" $(SIDE_BY_SIDE)
	@$(BIN)/python -m pytest -v -m "full and alone"

bench: $(VENV)/.bench ## the benchmarks, beside their floors
	@$(BIN)/python -m benchmarks

bench-catchup: $(VENV)/.bench ## what catching up costs, in scopes of 10,000 and 1,000,000 documents
	@$(BIN)/python -m benchmarks.catchup

bench-ot: $(VENV)/.bench $(NODE_PACKAGES) ## operations on texts, and a server of them beside ShareDB
	@$(BIN)/python -m benchmarks.ot

lock: ## write the lock files anew from pyproject.toml (needs uv)
	@$(LOCK) pyproject.toml -o requirements/run.txt
	@for group in build test notebooks bench; do \
	  $(LOCK) --group pyproject.toml:$$group -c requirements/run.txt -o requirements/$$group.txt; done

system-packages: ## what only apt has (as root); none of the commands above needs it
	@command -v npm >/dev/null || { apt-get update -qq && apt-get install -y -qq nodejs npm; }

clean: ## forget the environment and caches
	rm -rf $(VENV) tests/js/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.created:
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.created requirements/run.txt requirements/build.txt pyproject.toml
	@$(PIP_INSTALL) --require-hashes -r requirements/build.txt -r requirements/run.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	@$(PIP_INSTALL) --require-hashes -r requirements/test.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.test requirements/bench.txt
	@$(PIP_INSTALL) --require-hashes -r requirements/bench.txt
	@touch $@

$(NODE_PACKAGES): tests/js/package-lock.json
	@if command -v npm >/dev/null; then cd tests/js && $(NPM_CI); \
	  else echo "npm is not installed: tests that need Node are skipped"; fi
