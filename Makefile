# make demo   one simulated study from start to report, on data that comes with the packages
# make test   every check: lint, types, layers, tests with branch coverage
# make test-more  what takes longer, and is run beside it
# They make .venv and install by themselves; a second call reuses it.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
TORCH ?=
DEMO_FLAGS ?=
STUDIES ?= 200
FLOWERS ?= 1.41.0 1.42.0
PYTEST_FLAGS ?=
BENCHMARKS ?= reference_job engines server_memory private_step federation large_model

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test tests style types test-more long pages attacks studies pacs browser notebooks docs test-flower other-flower chart lint format proto lock lock-site \
  lock-server lock-simulation lock-torch bench bench-compression gpu faults clean

help:
	@echo "make demo    a simulated study on embedded data, ending in a report"
	@echo "make test    lint, types, import layers, tests with branch coverage"
	@echo "make test-more  what takes longer than these: make long, pages, attacks, studies, pacs, browser, notebooks, docs,"
	@echo "             other-flower and chart"
	@echo "make long    tests of a minute: every private network, backups of real processes"
	@echo "make pages   the commands and examples of README and docs, run as they stand there"
	@echo "make attacks what strangers and bad sites do to a server, done to real processes"
	@echo "make studies random valid studies, each run on a few small patients; STUDIES=2000 for more"
	@echo "make pacs    to a real picture archive (Debian's Orthanc) and back; without one they skip"
	@echo "make browser the live pages in the system's Chromium, with real daemons; without one they skip"
	@echo "make notebooks the notebooks of docs/notebooks, executed"
	@echo "make docs    the documentation as a site, in site/; a broken link fails it"
	@echo "make test-flower  what touches Flower, on each Flower that is allowed; FLOWERS= picks some"
	@echo "make chart   the Helm chart, rendered by a Go template engine from npm; without Node it skips"
	@echo "make lint    the first three of them"
	@echo "make format  rewrite the files as 'make lint' wants them"
	@echo "make proto   the code of the operators' messages, from operators.proto"
	@echo "make lock    requirements/*.txt anew from pyproject.toml and constraints.txt, with hashes; needs uv"
	@echo "make bench   time, memory and engines, beside bare torch loops; BENCHMARKS= picks some"
	@echo "make bench-compression DATA_ROOT=...   what compression saves, on chest X-rays"
	@echo "make gpu     on a machine with a GPU: right, fast, what fits; without one it checks itself"
	@echo "make faults  what goes wrong between server and sites, done to real processes; FAULTS= picks some"
	@echo "make clean   remove caches and build products; .venv and runs stay"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Wardround needs Python 3.11 or newer; '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo not there)." \
	    "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON)' cannot make a virtual environment." \
	    "Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@test -z "$(TORCH)" || $(BIN)/python -m pip install --quiet --require-hashes --no-deps \
	  --index-url https://download.pytorch.org/whl/cpu -r requirements/torch-$(TORCH).txt
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[test]'
	@touch $@

demo: $(STAMP)
	$(BIN)/wardround simulate brain-tissue --out runs/demo/$$(date +%Y%m%d-%H%M%S) $(DEMO_FLAGS)

lint: style types

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/lint-imports

# mypy is one process, and runs beside the first tests.
test: style
	@$(MAKE) --no-print-directory -j 2 types tests

# One thread a process: with small tensors more only wait for each other. Three workers on two cores,
# for the end-to-end tests wait most of their time; they come first, and who has nothing left takes
# some of them. Neighbours stay together, so that what a file prepares is prepared once.
tests: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist worksteal -m "not gpu and not pages and not pacs and not long" \
	  --cov --cov-report=term $(PYTEST_FLAGS) tests/e2e tests/integration tests/unit

# Checks that 'make test' has no time for. Two at a time of those that are one process and wait; each
# one's output comes as a whole, where make can do that.
SYNC = $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

test-more: long pages notebooks docs other-flower chart
	@$(MAKE) --no-print-directory -j 2 $(SYNC) pacs studies attacks browser

long: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist worksteal -m long $(PYTEST_FLAGS) tests/e2e tests/integration tests/unit

# What the pages say, run as it stands there.
pages: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist worksteal -m pages $(PYTEST_FLAGS) tests/e2e tests/pages tests/integration

attacks: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m attacks $(PYTEST_FLAGS) tests/attacks

studies: $(STAMP)
	OMP_NUM_THREADS=1 WARDROUND_STUDIES=$(STUDIES) $(BIN)/pytest -m studies $(PYTEST_FLAGS) tests/studies

pacs: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m pacs $(PYTEST_FLAGS) tests/pacs

browser: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m browser $(PYTEST_FLAGS) tests/browser

# One after the other, each on both cores: as it is said that they take less than three minutes.
notebooks: $(STAMP)
	$(BIN)/pytest -m notebooks $(PYTEST_FLAGS) tests/notebooks

# An environment for each Flower holds what is new with it, in front of the packages of the first one:
# 60 MB and 10 seconds each. Both are named to the tests in which a server has one and a site the other.
FLOWER_TESTS = $(shell sed '/^\#/d' tests/flower/touching.txt)
OTHER_FLOWERS = $(filter-out $(shell sed -n 's/^flwr==//p' constraints.txt),$(FLOWERS))
# $(1): what runs, $(2): the environment of the other Flower, $(3): tests
RUN_FLOWER = WARDROUND_OTHER_FLOWER=$(abspath $(2))/bin/python OMP_NUM_THREADS=1 $(1)/bin/python -m pytest \
  -n 3 --dist worksteal -p no:cacheprovider \
  -m "not gpu and not pages and not pacs and not long and not browser" $(PYTEST_FLAGS) $(3)

.venv-flower/%/.installed: $(STAMP) tests/flower/environment.py
	$(BIN)/python tests/flower/environment.py $* $(@D)
	@touch $@

test-flower: $(FLOWERS:%=.venv-flower/%/.installed)
	@set -e; for one in $(FLOWERS); do for other in $(FLOWERS); do test $$one != $$other || continue; \
	  echo "flwr $$one, and a site with flwr $$other"; \
	  $(call RUN_FLOWER,.venv-flower/$$one,.venv-flower/$$other,$(FLOWER_TESTS)); break; done; done

# Beside 'make test', which has tested the Flower of constraints.txt.
other-flower: $(OTHER_FLOWERS:%=.venv-flower/%/.installed)
	@set -e; for one in $(OTHER_FLOWERS); do \
	  $(call RUN_FLOWER,.venv-flower/$$one,$(VENV),$(FLOWER_TESTS)); \
	  $(call RUN_FLOWER,$(VENV),.venv-flower/$$one,tests/e2e/test_flower_versions.py); done

# The engine is Go's own text/template for Node; a test holds it against the hash that was looked at.
chart: $(STAMP)
	@! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --ignore-scripts --no-save \
	  --prefix .venv-node @evertdespiegeleer/go-template@1.0.2
	$(BIN)/pytest $(PYTEST_FLAGS) tests/unit/project/deployment/test_chart.py
# Strict: a broken link, an unknown anchor or a page outside the navigation fails it. The theme's
# advertisement of its successor is no warning of ours.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean --quiet

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP)
	$(BIN)/python -m grpc_tools.protoc -I src --python_out=src --pyi_out=src \
	  src/wardround/server/operators/proto/operators.proto

# What hospitals and operators install: every package with its hashes, from one index. torch apart,
# since it comes with CUDA or without (torch-cuda.txt, torch-cpu.txt).
UV ?= uv
PYPI := https://pypi.org/simple
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-config --custom-compile-command "make lock" --constraint constraints.txt
OF_CUDA = $(shell sed -nE 's/^((cuda|nvidia)-[a-z0-9-]+|torch|triton)==.*/--no-emit-package \1/p' \
  requirements/torch-cuda.txt)

lock:
	@echo torch | $(COMPILE) --index-url $(PYPI) - --output-file requirements/torch-cuda.txt
	@echo hatchling | $(COMPILE) --index-url $(PYPI) - --output-file requirements/build.txt
	@$(MAKE) --no-print-directory lock-site lock-server lock-simulation
	@wc -l requirements/*.txt

lock-site: EXTRAS = --extra dicom --extra export --extra monitor --extra ocr --extra pacs --extra privacy \
  --extra transformers
lock-server: EXTRAS = --extra monitor --extra privacy --extra transformers
lock-simulation: EXTRAS = --extra dicom --extra export --extra notebook --extra pacs --extra pdf --extra privacy \
  --extra simulation --extra sweep --extra track --extra transformers
lock-site lock-server lock-simulation: lock-%:
	@$(COMPILE) --index-url $(PYPI) $(EXTRAS) $(OF_CUDA) pyproject.toml \
	  --output-file requirements/$*.txt

lock-torch:
	@sed -n 's/^torch==.*/&+cpu/p' constraints.txt | $(COMPILE) --no-deps \
	  --index-url https://download.pytorch.org/whl/cpu - --output-file requirements/torch-cpu.txt

# Those that need no data; benchmarks.compression and others that do: docs/how-to/benchmarks.md.
bench: $(STAMP)
	@set -e; for name in $(BENCHMARKS); do echo "$$name"; $(BIN)/python -m benchmarks.$$name; done

bench-compression: $(STAMP)
	@test -n "$(DATA_ROOT)" || { echo "give DATA_ROOT=FOLDER, where the data sets lie" >&2; exit 2; }
	$(BIN)/python -m benchmarks.compression --data-root "$(DATA_ROOT)" --out runs/compression

# VENV may name an installation with a CUDA build of torch.
gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu $(GPU_FLAGS)

# Under ten minutes. All of them write the table in docs/concepts/reliability.md, some only print theirs.
faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults $(or $(FAULTS),--stages 2 --write)

clean:
	rm -rf build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find client common server simulations src tests benchmarks -name __pycache__ -prune \
	  -exec rm -rf {} +
