# Two commands on a fresh machine: `make quickstart` and `make test`. Everything lives in .venv of the checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := deployments/constraints-py$(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
STAMP := $(VENV)/.installed
SOURCES := configs flows storage tasks tests benchmarks docs
export OMP_NUM_THREADS := 1

.PHONY: quickstart test check format env clean

quickstart: env  ## train a small network on digits, ask question 1, print where the report is
	$(BIN)/layerlore run digits

test: env  ## all tests that this machine can run, slow ones too
	$(BIN)/python -m pytest -m "not gpu" -q

check: env  ## format, lint, types, layers, fast tests
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy --strict $(SOURCES)
	$(BIN)/python -m pytest -q -m "not slow and not s3 and not gpu and not browser and not cluster" --cov --cov-report=term:skip-covered

format: env  ## rewrite the sources in the project's format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

env: $(STAMP)  ## make .venv from pyproject and the tested versions

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

clean:  ## remove the environment and caches, keep stores
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info build
