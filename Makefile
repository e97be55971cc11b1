# Every target sets up what it needs. PYTHON chooses the interpreter, VENV the folder of the environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tiny models compute fastest on one thread, and tests are then the same on any machine.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-unit fmt lint type check clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

setup: $(STAMP) ## Create the environment

quickstart: $(STAMP) ## The main job on rendered videos: train, test, average, compare (about 6 minutes on 2 cores)
	$(BIN)/python tools/quickstart.py

test: $(STAMP) ## All tests that need no GPU
	$(PYTEST) tests

test-unit: $(STAMP) ## Unit, golden and architecture tests
	$(PYTEST) tests/unit tests/golden tests/architecture

fmt: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP) ## Style, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

type: $(STAMP) ## Static types
	$(BIN)/mypy

check: lint type test ## What continuous integration runs

clean: ## Remove the environment and what runs wrote
	rm -rf $(VENV) runs .mypy_cache .ruff_cache
