# Two commands on a fresh machine: `make quickstart` and `make test`. Everything lives in .venv of the checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := deployments/constraints-py$(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
STAMP := $(VENV)/.installed
TESTS := -n 2 --dist worksteal  # two processes; who is done first takes tests from the other
FAST := "not slow and not s3 and not gpu and not browser and not cluster and not long"
SOURCES := layerlore.py configs flows storage tasks deployments tests benchmarks docs
export OMP_NUM_THREADS := 1

.PHONY: quickstart test docs long gpu peers wheels lint check coverage format env swift slurm clean

quickstart: env  ## train a small network on digits, ask question 1, print where the report is
	$(BIN)/layerlore run digits

test: env  ## all tests that this machine can run, slow ones too
	$(BIN)/python -m pytest $(TESTS) -m "not gpu and not long" -q

long: env swift  ## tests of minutes each, on real servers
	$(BIN)/python -m pytest -m long -q

gpu:  ## what a GPU changes: the same numbers and the costs, in gpu.md; PYTHON needs torch, and the rest or ./wheels
	@test ! -d wheels || $(PYTHON) -m pip install -q --no-index --no-deps --upgrade --target build/gpu wheels/*.whl
	PYTHONPATH=build/gpu:. $(PYTHON) -m benchmarks.gpu --write gpu.md

peers: env  ## layerlore next to other tools, in an environment of their own; writes docs/peers.md
	$(BIN)/python -m benchmarks.peers

wheels:  ## what `make gpu` needs beside torch and what usually comes with it, for a machine without a network
	$(PYTHON) -m pip download -q --no-deps --only-binary :all: -d wheels -c $(CONSTRAINTS) zarr numcodecs donfig \
		google-crc32c pydantic pydantic-core annotated-types typing-inspection

docs: env  ## the documentation as a site in build/site, from the pages of this repository
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[docs]'
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

lint: env  ## format, lint, types
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy --strict $(SOURCES)

check: lint  ## format, lint, types, layers, fast tests
	$(BIN)/python -m pytest $(TESTS) -q -m $(FAST)

coverage: env  ## which lines the fast tests run; counting makes them slower, so `check` does not
	$(BIN)/python -m pytest $(TESTS) -q -m $(FAST) --cov --cov-report=term:skip-covered

format: env  ## rewrite the sources in the project's format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

env: $(STAMP)  ## make .venv from pyproject and the tested versions

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

swift: .venv-swift/.installed  ## a real S3 server for the tests, in an environment of its own (Linux)

.venv-swift/.installed:
	$(PYTHON) -m venv .venv-swift
	.venv-swift/bin/python -m pip install --quiet 'swift==2.38.*' 'setuptools<81'
	touch $@

slurm:  ## a real SLURM for the tests (Debian; needs root)
	apt-get install --yes slurm-wlm munge

clean:  ## remove the environment and caches, keep stores
	rm -rf $(VENV) .venv-swift .mypy_cache .ruff_cache .pytest_cache *.egg-info build
