# Everything runs in .venv, with the versions pinned in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check install --constraint constraints.txt
TORCH ?= torch==2.13.0

.PHONY: demo test quick nightly bench fidelity paper reports systems intervals lint clean

demo: .venv/core
	$(BIN)/simslm check scenarios/quickstart.yaml
	@echo
	$(BIN)/simslm simulate scenarios/quickstart.yaml

# All tests, or those of T: make test T=tests/sim/test_blocks.py; half of the random examples, of which make nightly
# draws thousands.
T ?=
test: .venv/dev
	SIMSLM_SCALE=0.5 $(BIN)/pytest -n 2 --dist worksteal $(T)

# What one runs while working: no browser, no profiler, no whole documents, and one in twenty random examples.
quick: .venv/dev
	SIMSLM_SCALE=0.05 $(BIN)/pytest -n 2 --dist worksteal -m 'not slow and not browser' --ignore=tests/profiler $(T)

# The random scenarios of the simulator's tests, thousands of each instead of hundreds, and the engine's tests for every
# family with every attention and shape instead of a fraction of them, all its kernels compiled for every GPU, and 200
# rehearsed campaigns with faults instead of 4.
nightly: .venv/dev
	SIMSLM_EXAMPLES=5000 $(BIN)/pytest -n 2 tests/sim tests/policies
	SIMSLM_WHOLE=1 $(BIN)/pytest -n 2 tests/profiler

bench: .venv/dev
	$(BIN)/python tests/bench/speed.py

# Predictions against a study's measured runs, which do not ship: TRUTH is the directory of its RUNS.csv.
TRUTH ?= ../shared/truth/h100-vllm
fidelity: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m truth.fidelity $(TRUTH)/runs.csv -o reports/fidelity.md

# The findings of the paper: scenarios/paper and, where TRUTH has the study's runs, those as they were run.
paper: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m truth.paper $(TRUTH)/runs.csv -o reports/paper

# The published systems of tests/systems/claims, each against its baseline; needs no data from outside.
systems: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m systems.report -o reports/systems.md

# How often the intervals of a comparison are right: 640 runs of a queue at four loads, some six minutes.
intervals: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m comparison.study -o reports/intervals.md

# A page of each kind in reports/ (not kept in git), and the pictures of the README; see reports/README.md.
reports: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m examples.pages $(TRUTH)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "simslm needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

# The tests need torch's CPU build only. Where pip would bring the CUDA one, choose:
#   make test TORCH='torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu'
.venv/dev: .venv/core
	$(PIP) $(TORCH)
	$(PIP) --editable '.[dev,profile,search,transformers]'
	$(PIP) triton || echo "no Triton for this platform: its tests will skip"
	$(PIP) --editable '.[ray]' || echo "no Ray for this Python: its tests will skip"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info runs
