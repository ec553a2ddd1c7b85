# Everything a newcomer or CI runs. `make help` lists it. The environment is made on first use and follows the pins.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PINS := requirements/core.txt requirements/dev.txt
PARITY_VENV := .venv-parity

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help quickstart test lint types test-parity clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

quickstart: $(VENV)/.core  ## install, get the model, evolve, fine-tune, sample, score; ARGS='train.steps=20' overrides
	$(BIN)/jaxwiz run configs/pipeline/quickstart.yaml $(ARGS)

test: $(VENV)/.dev  ## all tests but the live comparisons with other implementations
	$(BIN)/python -m pytest -q -n 2 -m "not parity"

lint: $(VENV)/.dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy over the package
	$(BIN)/mypy

test-parity: $(PARITY_VENV)/.ready  ## live comparison with transformers and torch
	$(PARITY_VENV)/bin/python -m pytest -q -m parity

$(VENV)/.core: requirements/core.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxwiz needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements/core.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core requirements/dev.txt
	$(BIN)/python -m pip install --quiet -r requirements/dev.txt
	touch $@

$(PARITY_VENV)/.ready: $(PINS) requirements/parity.txt pyproject.toml
	test -x $(PARITY_VENV)/bin/python || $(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python -m pip install --quiet -r requirements/core.txt -r requirements/dev.txt -r requirements/parity.txt
	$(PARITY_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:  ## remove the environments and caches, never runs/
	rm -rf $(VENV) $(PARITY_VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
