# The only orchestrator. `make help` lists what there is; every target builds the environment it needs first.
#
# PYTHON=python3.12      interpreter the environment is built from (3.11 to 3.13)
# GPU=1                  with CUDA, for an NVIDIA GPU (Linux, x86_64); stays so until GPU=0
# PY=python              use an environment of your own as it is (conda, Binder) and build none
# JOBS=4                 so many notebooks at a time (2)
# LAUNCH="srun -c4"      prefix for each notebook's runs, to send them to a cluster
# MODEL=vgg19            another model, by name, file or card; its reports get a folder of their own; your own is
#                        described by its card, or by PREPROCESSING= LABELS= TASK= RESIZING= SIZE= LAYER= TOKENS= OUTPUT=
# RUNS="21_* *--cat"     only these runs
# OUT=/scratch/me        where that goes which is made, if not to reports/, results/ or workshop/
# CELL_LIMIT=3600        seconds that a notebook's cell may take when reports are made (600)
# HOST=0.0.0.0 PORT=80   where `make app` listens; anyone who reaches it can run what the explorer runs
# REPOSITORY=https://... the suite's public address, for student copies that run on Colab
# PLATFORM=windows       make a bundle for other laptops: linux, linux-arm, mac, windows; PYTHON_VERSION=3.12

PYTHON = python3
VENV   = .venv
GPU    = $(if $(wildcard $(VENV)/.complete-gpu),1)
PY     = $(VENV)/bin/python
TEST_JOBS = 2
HOST   = 127.0.0.1
PORT   = 8866
REPOSITORY =
PLATFORM =
PYTHON_VERSION =

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.PHONY: help env lab app reports report docs evaluate workshop workshop-bundle test test-browser bench lint readme lock clean anew
# Notebooks import this checkout's xai_utils, whichever environment runs them.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

# --- environment ------------------------------------------------------------------------------------------------------

# Stamps come last: an environment without one was not finished, and is built again from nothing.
OWN = $(findstring command,$(origin PY))
CUDA = $(filter-out 0,$(GPU))
ENV = $(if $(OWN),,$(VENV)/.complete$(if $(CUDA),-gpu))
DEV = $(if $(OWN),,$(VENV)/.complete-dev)

python_version := $(PYTHON) -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null
check_python = $(if $(filter 3.11 3.12 3.13,$(found)),,$(error Python 3.11, 3.12 or 3.13 is needed, but \
	'$(PYTHON)' is $(if $(found),Python $(found),not there): choose one with PYTHON=python3.12 or the like))

# Of TensorFlow's packages only this one is built with CUDA.
check_cuda = $(if $(CUDA),$(if $(filter Linux-x86_64,$(machine)),,$(error GPU=1: TensorFlow's packages hold CUDA for \
	Linux-x86_64 only, not for $(machine): with GPU=0 the processor computes)))
machine = $(shell uname -sm | tr ' ' -)

env: $(ENV)  ## build .venv from requirements.lock (GPU=1 with CUDA)

# Packages of CUDA are not taken out one by one: without them it is built anew.
$(VENV)/.complete: requirements.lock $(if $(CUDA),,$(if $(wildcard $(VENV)/.complete-gpu),anew))
	$(eval found := $(shell $(python_version)))$(check_python)$(check_cuda)
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	@# pip would compile on one processor. Some packages carry files that are no Python; nobody imports them.
	@$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true
	@# setuptools is in the lock: without isolation nothing more is fetched to build our own small package.
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.complete-gpu: requirements-gpu.lock $(VENV)/.complete
	$(check_cuda)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-gpu.lock
	@touch $@

$(VENV)/.complete-dev: requirements-dev.lock $(ENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

lab: $(ENV)  ## open JupyterLab on notebooks/
	$(PY) -m jupyterlab --ServerApp.root_dir=notebooks$(if $(filter 0,$(shell id -u)), --allow-root)

app: $(ENV)  ## the explorer without code, on this machine only (MODEL=, HOST=, PORT=)
	@$(PY) -m xai_suite.explorer.app --host $(HOST) --port $(PORT)

# --- reports ----------------------------------------------------------------------------------------------------------
# What is out of date is decided by content; see `python -m xai_suite.reports --help`.

reports: $(ENV)  ## regenerate what is out of date (JOBS=, LAUNCH=, MODEL=, RUNS=, OUT=)
	@$(PY) -m xai_suite.reports

report: $(ENV)  ## one report: NOTEBOOK=21_grad_cam IMAGE=my.jpg [MODEL=] [PARAMS="steps=8"] [OUT=]
	@$(PY) -m xai_suite.reports one

docs: $(DEV)  ## reference of the library, every technique with a figure, and docs/, beside the reports (OUT=)
	@$(PY) -m xai_suite.reference

# Any number of pictures, here or on a Dask cluster; the same command goes on where it stopped.
evaluate: $(ENV)  ## score techniques: MANIFEST=pictures.csv TECHNIQUES="grad_cam rise:masks=500" [MODEL= SCHEDULER= OUT=]
	@$(PY) -m xai_suite.evaluation.command

# Values go through the environment as they were typed, whatever is in them: there is no quoting to get wrong.
TYPED = RUNS JOBS LAUNCH MODEL OUT NOTEBOOK IMAGE PARAMS MANIFEST TECHNIQUES METRICS EXPLAIN SCHEDULER PREPROCESSING LABELS TASK RESIZING SIZE LAYER TOKENS OUTPUT
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))
export $(TYPED)

# --- workshop ---------------------------------------------------------------------------------------------------------
# Both folders stand alone: notebooks, packages, weights. The user's own pictures and models stay at home.

workshop: $(ENV)  ## student and teacher copies (REPOSITORY=, OUT=)
	@$(PY) -m xai_suite.workshop --repository '$(REPOSITORY)'

workshop-bundle: workshop  ## an archive that installs without network (PLATFORM=windows PYTHON_VERSION=3.12)
	@$(PY) -m xai_suite.workshop.bundle "$${OUT:-workshop}" --platform '$(PLATFORM)' --python-version '$(PYTHON_VERSION)'

# --- tests ------------------------------------------------------------------------------------------------------------

PYTEST = $(PY) -m pytest -q -n $(TEST_JOBS) -m "not browser" --dist
SLOW   = tests/reports/test_runner.py tests/reports/test_reports.py

test: $(ENV)  ## unit tests, contracts, runner and Makefile tests, then every notebook
	$(PYTEST) loadfile tests $(SLOW:%=--ignore=%)
	$(PYTEST) worksteal $(SLOW)
	$(PYTEST) loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=600 --nbval-kernel-startup-timeout=60 notebooks

chromium = $(or $(CHROMIUM),$(shell for b in chromium chromium-browser google-chrome; do command -v $$b && break; done))

test-browser: $(DEV)  ## open the site in headless Chromium, with the network blocked
	@$(if $(chromium),CHROMIUM='$(chromium)' $(PY) -m pytest -q -m browser tests,echo \
	"test-browser skipped: no Chromium found; install chromium, or say where it is with CHROMIUM=/path/to/it")

bench: $(ENV)  ## measure speed
	$(PY) benchmarks/run.py

lint: $(DEV)  ## ruff over code and notebooks, directions of imports, README's table
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint(["--no-cache"])'
	$(PY) -m xai_suite.workshop.table --check

readme: $(ENV)  ## write README's table of notebooks
	$(PY) -m xai_suite.workshop.table

# --- housekeeping -----------------------------------------------------------------------------------------------------

uv = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header $(if $(UPGRADE),--upgrade)
extra = import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")

lock: $(DEV)  ## write the lock files from pyproject.toml (UPGRADE=1 for newer versions)
	$(uv) pyproject.toml --output-file requirements.lock
	for name in dev gpu; do $(PY) -c '$(extra)' $$name | $(uv) - --constraint requirements.lock --output-file requirements-$$name.lock || exit; done

clean:  ## delete everything generated, except .venv
	rm -rf reports/build reports/site workshop build *.egg-info .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
