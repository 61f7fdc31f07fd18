# `make demo` and `make test` need Python >= 3.10, make and a package index; uv is used when it is there.
# Another interpreter: make clean demo PYTHON=python3.12   More test processes: make test JOBS=8   Without uv: make demo UV=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-slow test-slurm check clean

BIN := .venv/bin
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)
JOBS ?= 2

# The versions in constraints.txt need Python 3.11, so that is looked for first; 3.10 installs what pyproject.toml allows.
ifndef PYTHON
PYTHON := $(shell for minor in 11 10; do for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c "import sys; sys.exit(sys.version_info < (3, $$minor))" 2>/dev/null && echo $$python && exit; done; done)
endif

CREATE = $(if $(UV),uv venv --quiet --seed --clear --python,$(PYTHON) -m venv --clear) \
	$(if $(UV),"$$($(PYTHON) -c 'import sys; print(sys.executable)')") .venv
INSTALL = $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install) \
	$$($(BIN)/python -c 'import sys; print("-c constraints.txt" if sys.version_info >= (3, 11) else "")')
# One thread per test process: the processes already fill the cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: .venv/.installed ## Make .venv and install fastgen into it

demo: venv ## Run the whole chain on the embedded model; the result is out/demo
	$(BIN)/fastgen demo --out out/demo

test: check ## Check, then run the default tests
	$(PYTEST) -n $(JOBS) --dist loadscope --timeout 900

test-slow: .venv/.installed-test ## Run the tests that take minutes or more
	$(PYTEST) -m "slow and not gpu"

test-slurm: .venv/.installed-test ## Install SLURM (apt, root), start it, and test on it
	hpc/local-slurm install
	$(PYTEST) -m slurm tests/slurm --timeout 600 --durations=0

check: .venv/.installed-test ## Lint and check the types
	$(BIN)/ruff check .
	$(BIN)/mypy

clean: ## Remove .venv, caches and out/demo; engines and other outputs stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info out/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "fastgen needs Python 3.10 or newer, but $(or $(PYTHON),python3) is" \
			"$$($(or $(PYTHON),python3) --version 2>/dev/null || echo not found)." \
			"Install one, or name one: make $(or $(MAKECMDGOALS),venv) PYTHON=python3.11" >&2; exit 1; }
	$(CREATE)

# The stamps are newer than what they were installed from; --clear above removes them with the environment.
.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

.venv/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[test]'
	@touch .venv/.installed $@
