# `make demo` shows Crosslens at work, `make test` runs every check. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: help demo models test lint format lock bench clean

help:
	@echo "make demo    install, index the sample photos, search them"
	@echo "make models  install what makes bundles of CLIP and SigLIP checkpoints"
	@echo "make test    set up the tests, then lint, check types and run them all"
	@echo "make lint    ruff and mypy alone        make format  rewrite as ruff wants it"
	@echo "make bench   the benchmarks             make lock    pin the newest dependencies"

demo: $(VENV)/.run
	@$(BIN)/crosslens demo

models: $(VENV)/.export

test: lint $(VENV)/.export
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.export
	$(BIN)/python -m bench.ingest
	$(BIN)/python -m bench.index
	$(BIN)/python -m bench.search
	$(BIN)/python -m bench.encoders

# The virtual environment. A half-made one is made again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Crosslens needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
	  { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

# What runs Crosslens, pinned and checked by hash.
$(VENV)/.run: $(VENV)/.made requirements/run.lock pyproject.toml
	@echo "Installing Crosslens into $(VENV) ..."
	@$(PIP) -r requirements/run.lock
	@$(PIP) --no-deps --editable .
	@touch $@

# What checks it besides.
$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	@echo "Installing the test tools into $(VENV) ..."
	@$(PIP) -r requirements/dev.lock
	@touch $@

# The exporter: torch, open_clip and transformers, some 6 GB.
$(VENV)/.export: $(VENV)/.dev requirements/export.lock
	@echo "Installing torch and the exporter's other parts into $(VENV); this takes minutes ..."
	@$(PIP) -r requirements/export.lock
	@touch $@

# Each lock constrains the next, so that one version of each package is tested and run.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(LOCKFLAGS)
lock:
	$(LOCK) pyproject.toml -o requirements/run.lock
	$(LOCK) --extra dev -c requirements/run.lock pyproject.toml -o requirements/dev.lock
	$(LOCK) --extra gpu -c requirements/run.lock --no-emit-package onnxruntime pyproject.toml -o requirements/gpu.lock
	$(LOCK) --extra dev --extra export -c requirements/dev.lock pyproject.toml -o requirements/export.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis crosslens-demo
