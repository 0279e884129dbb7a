# What a developer does, one target each. A fresh clone needs python3 (3.11 or newer) and PyPI.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q -c constraints.txt
# Each test process gets one thread: the workers are what fills the cores, and steal work from each other at the end. What was
# compiled is kept, so that tests are read once.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run test test-browser check types docs typetree

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One thread: so small a network gains nothing from two, and loses much where other work keeps the cores busy.
run: export OMP_NUM_THREADS = 1
run: $(VENV)/run.stamp ## build and train examples/digits (three stop-gradient blocks), offline
	$(BIN)/lpc build examples/digits/spec.yaml -o runs/digits.plan
	$(BIN)/lpc run runs/digits.plan --out runs/digits

test: $(VENV)/dev.stamp ## run the whole test suite
	$(PYTEST) -n $(WORKERS) --dist worksteal

test-browser: $(VENV)/browser.stamp ## drive the page of `lpc inspect --html` in a real Chromium (chromium, chromium-driver)
	LPC_BROWSER=1 $(PYTEST) tests/browser

check: $(VENV)/dev.stamp ## lint, and test the architecture: import order, package list, sizes
	$(BIN)/ruff check .
	$(PYTEST) tests/architecture

types: $(VENV)/dev.stamp typetree ## check all types, strictly
	$(BIN)/mypy

docs: $(VENV)/dev.stamp ## write the generated pages, and execute every block of README and docs
	$(BIN)/python -c "from lpc.views.pages import write; write('docs')"
	$(PYTEST) tests/test_docs.py

# mypy cannot follow pyproject's package-dir: it reads the packages through a tree of links.
typetree: $(VENV)/run.stamp
	$(BIN)/python tests/architecture/typetree.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lpc needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/run.stamp

$(VENV)/browser.stamp: $(VENV)/dev.stamp
	$(PIP) -e '.[dev,browser]'
	@touch $@
