# Bittern. Bare `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# Roots of other systems for test-arm64 and test-picamera2; kept out of the checkout so that fresh clones find them.
CACHE ?= $(HOME)/.cache/bittern
TASK ?= stop_sign
RUN ?= runs/$(TASK)

DEV := .venv
HOST := .venv-host
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-device test-host test-arm64 test-picamera2 lint train convert evaluate wheel deploy clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z0-9-]+):.*## */\1\t/' | expand -t 16

# --- environments: made on first use from a bare Python, again when pyproject.toml changes -----------------------

$(DEV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Bittern needs Python 3.11 or newer, not $$($(PYTHON) -V); say make PYTHON=python3.12" >&2; exit 2; }
	@echo "making $(DEV): the device side, without TensorFlow"
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python $(PIP) -e '.[opencv]'
	@touch $@

$(DEV)/.dev: $(DEV)/.ready
	@$(DEV)/bin/python $(PIP) -e '.[opencv,dev]'
	@touch $@

$(HOST)/.ready: pyproject.toml
	@echo "making $(HOST): the host side, with TensorFlow (about 2 GB)"
	@$(PYTHON) -m venv $(HOST)
	@$(HOST)/bin/python $(PIP) -e '.[train,dev]'
	@touch $@

# --- for users ---------------------------------------------------------------------------------------------------

demo: $(DEV)/.ready  ## watch a drawn street, print the event, leave build/demo.png
	@mkdir -p build
	$(DEV)/bin/bittern watch --source 'demo:?laps=1' --sheet build/demo.png
	@echo "what the camera saw: build/demo.png"

train: $(HOST)/.ready  ## fine-tune TASK (stop_sign) on the pictures in DATA=folder
	@test -n "$(DATA)" || { echo "say where the pictures are: make train DATA=../shared/data" >&2; exit 2; }
	$(HOST)/bin/bittern train $(TASK) --data $(DATA) $(if $(WEIGHTS),--weights $(WEIGHTS)) --out $(RUN) --force

convert: $(HOST)/.ready  ## turn the run into an int8 model folder, models/TASK, through the gate
	$(HOST)/bin/bittern convert $(RUN) --out models/$(TASK) --force

evaluate: $(HOST)/.ready  ## figures of models/TASK on the test pictures in DATA=folder
	@test -n "$(DATA)" || { echo "say where the pictures are: make evaluate DATA=../shared/data" >&2; exit 2; }
	$(HOST)/bin/bittern evaluate models/$(TASK) --data $(DATA)

# --- for developers ----------------------------------------------------------------------------------------------

lint: $(DEV)/.dev  ## ruff and strict mypy
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

test: test-device test-host  ## every test that runs anywhere

test-device: $(DEV)/.dev  ## the device side and whole journeys, without TensorFlow
	$(DEV)/bin/python -m pytest -m 'not host' $(ARGS)

test-host: $(HOST)/.ready  ## training and conversion, with TensorFlow
	$(HOST)/bin/python -m pytest -m host $(ARGS)

wheel: $(DEV)/.dev  ## dist/bittern-VERSION-py3-none-any.whl, models included
	$(DEV)/bin/python -m build --wheel --outdir dist .

clean:  ## remove what make made, but not runs/ and models/
	rm -rf $(DEV) $(HOST) build dist
