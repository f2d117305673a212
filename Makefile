# Bittern. Bare `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# Downloads for tests (root file systems); outside of the checkout, so that a fresh clone finds them.
CACHE ?= $(HOME)/.cache/bittern
# Shipped tasks without gtsrb, which takes as long as all others, or .toml files; RUN and MODEL are the folders for one of them.
TASK ?= stop_sign face_mask car_damage cars_tanks
RUN ?= runs/$$name
MODEL ?= models/$$name
# Builds and runs containers; podman where it is installed.
ENGINE ?= $(if $(shell command -v podman),podman,docker)
IMAGE ?= localhost/bittern
# Output of `bench`.
OUT ?= build/bench
MINUTES ?= 30
# Weights to start from: a file beside the pictures if there is one, else downloaded by Keras.
WEIGHTS ?= $(firstword $(wildcard $(DATA)/../weights/mobilenet_v2_1.0_224*no_top.h5) imagenet)

# On a Raspberry Pi numpy, OpenCV and picamera2 are Debian's; a wheel of another numpy would break picamera2.
PI := $(shell grep -qas 'Raspberry Pi' /proc/device-tree/model && echo yes)
COMMA := ,
DEV := .venv
HOSTENV := .venv-host
OPENCV410 := .venv-opencv410
COMPAT := .venv-compat
BENCHENV := .venv-bench
TOOLS := .venv-tools
PIP := -m pip install --quiet --disable-pip-version-check
# Runs its argument for every task, with the task's name in $$name; stops at the first failure.
EACH = for task in $(TASK); do name=$$(basename $$task .toml); $(1) || exit; done

.PHONY: help need-data need-host demo test test-quick test-device test-host test-slow test-faults soak test-page test-opencv test-compat test-arm64 test-picamera2 test-pi test-homeassistant test-container container lock sbom lint train convert evaluate bench bench-host reproduce report wheel deploy deploy-model pull clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z0-9-]+):.*## */\1\t/' | expand -t 16

# --- environments: made on first use from a bare Python, and again when pyproject.toml or a lock changes ---

# $(call LOCKED,ENVIRONMENT,LOCK,EXTRAS,OPTIONS): exact versions, each file by its hash; then this checkout, for which pip may
# fetch nothing more. What builds packages comes first: with build isolation pip would fetch it without a lock.
LOCKED = $(1)/bin/python $(PIP) --require-hashes -r locks/build.txt && \
    $(1)/bin/python $(PIP) --no-build-isolation --require-hashes -r locks/$(2).txt && \
    { $(1)/bin/python $(PIP) --no-build-isolation --no-index $(4) -e '.$(3)' || \
      { echo "locks/$(2).txt does not hold what pyproject.toml asks for: run make lock" >&2; exit 1; }; }

$(DEV)/.ready: pyproject.toml locks/build.txt locks/$(if $(PI),pi,device).txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { echo "make needs Python 3.11 to 3.14, this is $$($(PYTHON) -V 2>&1); say make PYTHON=python3.12" >&2; exit 2; }
	@echo "making $(DEV): the device side, without TensorFlow"
	@$(PYTHON) -m venv $(if $(PI),--system-site-packages) $(DEV)
	@$(call LOCKED,$(DEV),$(if $(PI),pi,device),[page$(if $(PI),,$(COMMA)opencv)])
	@touch $@

$(DEV)/.dev: $(DEV)/.ready locks/$(if $(PI),pi-dev,dev).txt
	@$(call LOCKED,$(DEV),$(if $(PI),pi-dev,dev),[dev$(if $(PI),,$(COMMA)opencv$(COMMA)data)])
	@touch $@

$(HOSTENV)/.ready: pyproject.toml locks/build.txt locks/host.txt
	@echo "making $(HOSTENV): the host side, with TensorFlow (2 GB, some minutes)"
	@$(PYTHON) -m venv $(HOSTENV)
	@$(call LOCKED,$(HOSTENV),host,[train$(COMMA)dev])
	@touch $@

$(OPENCV410)/.ready: pyproject.toml locks/build.txt locks/opencv410.txt
	@echo "making $(OPENCV410): the device side with OpenCV 4.10, Debian trixie's"
	@$(PYTHON) -m venv $(OPENCV410)
	@$(call LOCKED,$(OPENCV410),opencv410)
	@touch $@

$(COMPAT)/.ready: pyproject.toml locks/build.txt locks/compat.txt
	@command -v python3.11 >/dev/null || { echo "tflite-runtime has wheels up to Python 3.11: install python3.11" >&2; exit 2; }
	@echo "making $(COMPAT): the device side with tflite-runtime 2.14 and numpy 1.26"
	@python3.11 -m venv $(COMPAT)
	@$(call LOCKED,$(COMPAT),compat,,--no-deps)
	@touch $@

$(BENCHENV)/.ready: pyproject.toml locks/build.txt locks/bench.txt
	@echo "making $(BENCHENV): the device side with MediaPipe"
	@$(PYTHON) -m venv $(BENCHENV)
	@$(call LOCKED,$(BENCHENV),bench,[bench$(COMMA)page])
	@touch $@

$(TOOLS)/.ready: locks/tools.txt
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python $(PIP) --require-hashes -r locks/tools.txt
	@touch $@

# --- for users ---

# What a target cannot do without is asked for before an environment is made for it.
need-data:
	@test -n "$(DATA)" || { echo "say where the pictures are: make $(MAKECMDGOALS) DATA=../shared/data" >&2; exit 2; }

need-host:
	@test -n "$(HOST)" || { echo "say which Pi: make $(MAKECMDGOALS) HOST=pi@raspberrypi.local" >&2; exit 2; }

demo: $(DEV)/.ready  ## watch a drawn street, print the events, write build/demo.png
	@mkdir -p build
	$(DEV)/bin/bittern watch --source 'demo:?laps=1' --sheet build/demo.png
	@echo "what the camera saw: build/demo.png"

# Of GTSRB only the archives are kept in DATA: they are unpacked beside links to the other sets.
GTSRB := $(wildcard $(DATA)/gtsrb/train.zip)
GTSRB_TEST := $(wildcard $(DATA)/gtsrb/test.zip)
PICTURES := $(if $(GTSRB),build/data,$(DATA))

build/data/gtsrb/index.csv: $(GTSRB) $(GTSRB_TEST) train/bittern_train/gtsrb.py $(HOSTENV)/.ready
	@mkdir -p build/data
	@ln -sfn $(abspath $(filter-out %/gtsrb,$(wildcard $(DATA)/*))) build/data
	$(HOSTENV)/bin/python -m bittern_train.gtsrb build/data/gtsrb $(GTSRB) $(GTSRB_TEST)

train: need-data $(HOSTENV)/.ready $(if $(GTSRB),build/data/gtsrb/index.csv)  ## fine-tune on the pictures in DATA=folder (all shipped tasks but gtsrb, or TASK=gtsrb)
	@$(call EACH,(set -x; $(HOSTENV)/bin/bittern train $$task --data $(PICTURES) --weights $(WEIGHTS) --out $(RUN) --force))

convert: $(HOSTENV)/.ready  ## turn the runs into int8 model folders, if they pass the parity check
	@$(call EACH,(set -x; $(HOSTENV)/bin/bittern convert $(RUN) --out $(MODEL) --force))

evaluate: need-data $(DEV)/.ready  ## metrics of the models on the test pictures in DATA=folder, after make train
	@$(call EACH,test -f $(RUN)/index.csv || { echo "no run at $(RUN): say make train first" >&2; exit 2; }; (set -x; $(DEV)/bin/bittern evaluate $(MODEL) --data $(RUN)/index.csv --root $(if $(wildcard build/data/gtsrb/index.csv),build/data,$(DATA))))

reproduce: need-data  ## train and convert everything again, and report how much the metrics differ from the shipped ones: DATA=folder
	@$(MAKE) --no-print-directory train convert RUN='build/reproduce/runs/$$$$name' MODEL='build/reproduce/models/$$$$name'
	@$(call EACH,$(HOSTENV)/bin/bittern diff models/$$name build/reproduce/models/$$name)

bench: $(BENCHENV)/.ready  ## compare Bittern's cost with a bare inference, MediaPipe and a tutorial's loop; results in OUT=build/bench
	$(BENCHENV)/bin/bittern bench --out $(OUT)

bench-host: $(DEV)/.dev  ## compare import, check and dedupe of 10,000 pictures with bare decoding, and time the label page; results in OUT=build/bench
	$(DEV)/bin/bittern bench $(foreach row,import check dedupe dedupe_memory label_key,--row $(row)) --out $(OUT)

report: $(DEV)/.ready  ## write docs/results.md from the models and docs/results/
	$(DEV)/bin/bittern results models/* --results docs/results --out docs/results.md

deploy: need-host wheel  ## install on a Pi and start: HOST=pi@raspberrypi.local [INSTANCE=NAME] [CONFIG=FILE] [KEY=FILE] [ARGS=--allow-older]
	deploy/deploy.sh $(HOST) --wheel $$(ls -t dist/*.whl | head -1) $(if $(INSTANCE),--instance $(INSTANCE)) $(if $(CONFIG),--config $(CONFIG)) $(if $(KEY),--key $(KEY)) $(ARGS)

deploy-model: need-host  ## send one model to a Pi, which loads it while it runs: HOST=pi@raspberrypi.local MODEL=models/mine [KEY=FILE] [ARGS=--allow-older]
	@test "$(origin MODEL)" = "command line" || { echo "say which model: make deploy-model HOST=$(HOST) MODEL=models/mine" >&2; exit 2; }
	deploy/deploy_model.sh $(HOST) $(MODEL) $(if $(KEY),--key $(KEY)) $(ARGS)

pull: need-host $(DEV)/.ready  ## fetch the frames that a Pi has kept to learn from: HOST=pi@raspberrypi.local [INSTANCE=NAME] [OUT=kept]
	PYTHON=$(DEV)/bin/python deploy/pull.sh $(HOST) $(if $(filter command line,$(origin OUT)),$(OUT),kept) $(if $(INSTANCE),--instance $(INSTANCE)) $(ARGS)

wheel: $(DEV)/.dev  ## build dist/bittern-VERSION-py3-none-any.whl, including the models
	@rm -rf dist
	$(DEV)/bin/python -m build --wheel --no-isolation --outdir dist .

# Only an image in Docker's format has a health check.
container:  ## build the image localhost/bittern, with Podman or Docker (IMAGE=name ARGS=--platform=linux/arm64)
	$(ENGINE) build $(if $(findstring podman,$(ENGINE)),--format docker) --file Containerfile --tag $(IMAGE) $(ARGS) .

# --- for developers ---

# The first lines of a lock say how it was made. --project: that folder's settings for uv.
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes

lock: $(TOOLS)/.ready  ## renew locks/ after a change of pyproject.toml (ARGS=--upgrade: the newest versions of all)
	$(COMPILE) $(ARGS) --project locks/pi --group pyproject.toml:build -o locks/build.txt
	$(COMPILE) $(ARGS) --project locks/pi pyproject.toml --extra dev --no-emit-package numpy -o locks/pi-dev.txt
	$(COMPILE) $(ARGS) --project locks/pi pyproject.toml --extra mqtt --extra metrics --extra page --no-emit-package numpy -c locks/pi-dev.txt -o locks/pi.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra opencv --extra dev --extra data --group browser -o locks/dev.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra opencv --extra mqtt --extra metrics --extra page -c locks/dev.txt -o locks/device.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra train --extra dev --group browser -o locks/host.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra bench --extra page -o locks/bench.txt
	$(COMPILE) $(ARGS) pyproject.toml --group opencv410 -o locks/opencv410.txt
	$(COMPILE) $(ARGS) --group compat -o locks/compat.txt
	$(COMPILE) $(ARGS) --group tools -o locks/tools.txt

# A lock does not say which package needs which, and cyclonedx-py warns of that.
sbom: $(TOOLS)/.ready  ## write the packages of a device, a Raspberry Pi and a host as CycloneDX: build/sbom-SET.json
	@mkdir -p build
	for set in device pi host; do \
	    $(TOOLS)/bin/python -W ignore::UserWarning -m cyclonedx_py requirements locks/$$set.txt --pyproject pyproject.toml \
	        --output-reproducible --of JSON -o build/sbom-$$set.json || exit; done

lint: $(DEV)/.dev  ## ruff and strict mypy
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

# Files of tests run side by side, in the order of tests/conftest.py. On the device side most of them wait (for cameras,
# peers, processes), so that there are more workers than cores; the host side computes.
WORKERS := --dist loadfile --no-loadscope-reorder -n
CORES := $(shell nproc)
DEVICE_TESTS = $(DEV)/bin/python -m pytest $(WORKERS) $$((2 * $(CORES)))
HOST_TESTS = $(HOSTENV)/bin/python -m pytest $(WORKERS) $(CORES)
# Data tools and reports need no TensorFlow, so they are tested where there is none.
DEVICE_SUITE := --ignore tests/bittern_convert $(addprefix --ignore ,$(wildcard tests/bittern_train/*.py)) tests
HOST_SUITE := --ignore tests/bittern_train/data --ignore tests/bittern_train/reports tests/bittern_train tests/bittern_convert
QUICK_DEVICE := tests/test_arrows.py tests/test_docs.py $(addprefix tests/bittern/,config decision delivery evaluation model scene sources system) tests/e2e/test_daemon.py
QUICK_HOST := $(addprefix tests/bittern_convert/,test_parity.py test_calibration.py test_augment.py test_run.py test_tflite.py) $(addprefix tests/bittern_train/,test_task_files.py test_thresholds.py)

# With AGAIN=yes the tests that failed are run once more, one at a time; what fails again has failed. One that passes
# then does not bear a machine that stands still for seconds: both runs are in the output, it is to be mended.
ONCE_MORE = $(if $(AGAIN),|| { [ $$? = 1 ] && $(1)/bin/python -m pytest --last-failed --last-failed-no-failures none -m 'not slow' $(2); })

test: test-device test-host  ## everything that README and docs promise (some 15 minutes on 2 cores)

test-quick: $(DEV)/.dev $(HOSTENV)/.ready  ## the inner loop: pure code and one journey on each side (under 2 minutes)
	$(DEVICE_TESTS) -m 'not slow' $(QUICK_DEVICE) $(ARGS)
	$(HOST_TESTS) -m 'not slow' $(QUICK_HOST) $(ARGS)

test-device: $(DEV)/.dev  ## the device side and whole journeys, without TensorFlow
	$(DEVICE_TESTS) -m 'not slow' $(DEVICE_SUITE) $(ARGS) $(call ONCE_MORE,$(DEV),$(DEVICE_SUITE))

test-host: $(HOSTENV)/.ready  ## training and conversion, with TensorFlow
	$(HOST_TESTS) -m 'not slow' $(HOST_SUITE) $(ARGS) $(call ONCE_MORE,$(HOSTENV),$(HOST_SUITE))

test-slow: $(DEV)/.dev $(HOSTENV)/.ready  ## what takes too long for `make test`; before a release
	$(DEVICE_TESTS) -m slow $(DEVICE_SUITE) $(ARGS)
	$(HOST_TESTS) -m slow $(HOST_SUITE) $(ARGS)

VECTORS := tests/bittern/model/test_preprocess_vectors.py tests/bittern/model/test_shipped_models.py tests/bittern/model/test_orientation.py

test-faults: $(DEV)/.dev $(HOSTENV)/.ready  ## every fault at its full number of repetitions, property tests in full; prints a table (some 25 minutes)
	@mkdir -p build && rm -f build/faults.jsonl
	BITTERN_TESTS=full BITTERN_FAULTS_TABLE=$(CURDIR)/build/faults.jsonl $(DEV)/bin/python -m pytest tests/faults tests/e2e/test_deploy.py $(ARGS)
	$(DEV)/bin/python -m tests.faults.table build/faults.jsonl
	BITTERN_TESTS=full $(DEVICE_TESTS) -m 'hypothesis or fuzz' $(DEVICE_SUITE) $(ARGS)
	BITTERN_TESTS=full $(HOST_TESTS) -m 'hypothesis or fuzz' $(HOST_SUITE) $(ARGS)

soak: $(DEV)/.dev  ## run the daemon for MINUTES (30) at 10 times the frame rate and 100 times the events; plots in build/soak
	$(DEV)/bin/python -m tests.faults.soak --minutes $(MINUTES) --out build/soak

test-page: $(DEV)/.dev  ## the pages and their HTTP interface, in a real Chromium (Debian's package)
	$(DEV)/bin/python -m pytest $(WORKERS) $(CORES) tests/bittern/page tests/faults/test_page*.py tests/bittern_train/data/test_label.py $(ARGS)

test-opencv: $(DEV)/.dev $(OPENCV410)/.ready  ## preprocessing, golden vectors and orientation of pictures with OpenCV 5 and 4.10
	$(DEV)/bin/python -c 'import cv2; assert cv2.__version__.startswith("5."), cv2.__version__'
	$(DEV)/bin/python -m pytest -q $(VECTORS)
	$(OPENCV410)/bin/python -c 'import cv2; assert cv2.__version__.startswith("4.10."), cv2.__version__'
	$(OPENCV410)/bin/python -m pytest -q $(VECTORS)

test-compat: $(DEV)/.dev $(COMPAT)/.ready $(BENCHENV)/.ready  ## other tools' models on every runtime (tf.lite: if .venv-host is there), ours in MediaPipe; table in build
	BITTERN_COMPAT="tflite-runtime=$(COMPAT)/bin/python mediapipe=$(BENCHENV)/bin/python $(if $(wildcard $(HOSTENV)/.ready),tf.lite=$(HOSTENV)/bin/python)" \
	    $(DEV)/bin/python -m pytest -q tests/compat $(ARGS)
	@cat build/compat.txt

test-arm64: $(DEV)/.ready  ## preprocessing and golden vectors on aarch64 under qemu (root, Debian; 0.6 GB in CACHE; SUITE=trixie)
	tests/arm64/root.sh $(CACHE) build
	PYTHONPATH=. $(DEV)/bin/python tests/arm64/check_arm64.py $(CACHE) $(MODELS)

test-picamera2:  ## the real picamera2 on libcamera's virtual camera (root, Debian; 1 GB in CACHE)
	tests/picamera2/root.sh $(CACHE) build
	tests/picamera2/root.sh $(CACHE) run python3 check_virtual_camera.py

test-pi: $(DEV)/.dev wheel  ## a whole virtual Pi: deploy, camera, watchdog, power cuts, faults 40 and 41; table in build (root, Debian; 1.5 GB in CACHE; SUITE=trixie)
	tests/pi/root.sh $(CACHE) build
	PYTHON=$(DEV)/bin/python tests/pi/root.sh $(CACHE) wheels
	$(DEV)/bin/python -m tests.pi.check_pi $(CACHE) $$(ls -t dist/*.whl | head -1) $(ARGS)

test-homeassistant: $(DEV)/.dev  ## a real Home Assistant: faults 26 to 30, and the pages behind its ingress (root, Debian, mosquitto; 1.6 GB in CACHE)
	tests/homeassistant/root.sh $(CACHE) build
	BITTERN_HOMEASSISTANT=1 CACHE=$(CACHE) $(DEV)/bin/python -m pytest -q tests/homeassistant $(ARGS)

test-container: $(DEV)/.dev  ## the image with real containers: rights, events, health, broker, page (root, Debian; 1.5 GB in CACHE)
	tests/container/engine.sh $(CACHE) build
	$(MAKE) container ARGS= ENGINE='tests/container/engine.sh $(CACHE) podman'
	BITTERN_CONTAINER=1 CACHE=$(CACHE) $(DEV)/bin/python -m pytest -q tests/container $(ARGS)

clean:  ## remove everything that make created, except runs/ and models/
	rm -rf $(DEV) $(HOSTENV) $(OPENCV410) $(COMPAT) $(BENCHENV) $(TOOLS) build dist
