# make demo | make test | make lint: each does all the set-up it needs. See README.md.
#
#   PYTHON=python3.12 make demo   use this Python (3.11 or newer with venv) for .venv
#   make demo ARGS="--json"       pass arguments on to the program

PYTHON ?=
ARGS ?=
# The name holds the folder: a moved checkout is set up again, since .venv keeps absolute paths.
READY := .venv/.ready-$(shell pwd | cksum | cut -d' ' -f1)
BIN := .venv/bin

# Many containers forbid bytecode: then each of our processes would compile all it imports, for
# seconds, at every start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test test-unit test-contract test-integration lint protos errors-doc \
	bench bench-policy bench-filing bench-catalog lock clean

help:
	@echo "make demo              one real settlement after another across three provinces"
	@echo "make test              all tests (test-unit, test-contract, test-integration: parts)"
	@echo "make lint              ruff, mypy, import-linter, buf"
	@echo "make protos            write the stubs of the contracts again"
	@echo "make errors-doc        write docs/errors.md again"
	@echo "make bench             settlements per second on this machine"
	@echo "make bench-policy      policy cases per second on this machine"
	@echo "make bench-filing      entitlements per second, a million people imported"
	@echo "make bench-catalog     fee lines per second, a list of 250,000 items imported"
	@echo "make lock              choose versions of the dependencies again"
	@echo "make clean             remove .venv, .yidi (with its data) and caches"

setup: $(READY)

$(READY): requirements.lock pyproject.toml infra/setup.sh
	@READY='$@' PYTHON='$(PYTHON)' sh infra/setup.sh

demo: $(READY)
	@$(BIN)/yidi demo $(ARGS)

# Two workers: what shares a network is run by one of them (tests/conftest.py).
test: $(READY)
	@$(BIN)/python -m pytest --numprocesses 2 $(ARGS)

test-unit: $(READY)
	@$(BIN)/python -m pytest -m unit $(ARGS)

test-contract: $(READY)
	@$(BIN)/python -m pytest -m contract $(ARGS)

test-integration: $(READY)
	@$(BIN)/python -m pytest --numprocesses 2 -m integration $(ARGS)

lint: $(READY)
	@echo "ruff check";          $(BIN)/ruff check .
	@echo "ruff format --check"; $(BIN)/ruff format --check .
	@echo "mypy";                $(BIN)/python -m mypy
	@echo "lint-imports";        $(BIN)/lint-imports
	@echo "buf lint";            $(BIN)/buf lint
	@echo "buf format";          $(BIN)/buf format -d --exit-code

protos: $(READY)
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python protos/generate.py

errors-doc: $(READY)
	@$(BIN)/python -m infra.runtime.errors_doc

bench: $(READY)
	@$(BIN)/yidi bench settle --seconds 10 --concurrency 64 --lines 20 $(ARGS)

bench-policy: $(READY)
	@$(BIN)/yidi bench policy $(ARGS)

bench-filing: $(READY)
	@$(BIN)/yidi bench filing $(ARGS)

bench-catalog: $(READY)
	@$(BIN)/yidi bench catalog $(ARGS)

lock: $(READY)
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --group dev \
		pyproject.toml -o requirements.lock

clean:
	@if [ -x $(BIN)/yidi ]; then $(BIN)/yidi down || true; fi
	@rm -rf .venv .yidi .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
