# make demo, make test: each does all of its set-up in .venv. PYTHON picks the interpreter (3.10 or newer).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The demo and the tests run on this build; dsdoctor itself works with whatever torch the hosts have.
TORCH  ?= torch==2.13.0

# Of each target of the fuzzer.
FUZZ_SECONDS ?= 60
# Another number than 0: the same inputs each time, so that CI judges the code and not its luck.
FUZZ_SEED ?= 0

.PHONY: demo test quick fuzz lint format bench readme setup setup-dev setup-fuzz clean

demo: setup
	cd launch && $(abspath $(BIN))/python -m continual.assets
	$(BIN)/dsdoctor launch order_1 --fresh

test: setup-dev
	$(BIN)/python -m tests.side_by_side $(if $(REPORTS),--reports $(REPORTS)) -m "slow or not slow"

quick: setup-dev
	$(BIN)/python -m pytest -m "not slow"

fuzz: setup-fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

lint: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev
	$(BIN)/python -m benchmarks

readme: setup-dev
	$(BIN)/python -m dsdoctor.report.catalogue README.md

setup: $(VENV)/.train
setup-dev: $(VENV)/.dev
setup-fuzz: $(VENV)/.fuzz

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dsdoctor needs Python 3.10 or newer, found %d.%d; make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.train: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(BIN)/python -m pip install -q --group dev
	@touch $@

$(VENV)/.fuzz: pyproject.toml | $(VENV)/.dev
	$(BIN)/python -m pip install -q --group fuzz
	@touch $@

clean:
	rm -rf $(VENV) .fuzz build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
