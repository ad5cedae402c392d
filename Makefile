# `make` alone lists what there is. Everything is set up in .venv, once; a second run starts at once.

PYTHON ?= python3
# Further arguments, such as: make test ARGS="-k failover", make bench ARGS="--seconds 2".
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := deploy/constraints.txt
VLLM_VENV := .venv-vllm
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint $(CONSTRAINTS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint check bench test-vllm lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.installed-to-run ## the main job in under 15 seconds: a primary dies in mid-answer, a backup goes on with it, the primary returns
	@$(BIN)/understudy demo $(ARGS)

test: $(VENV)/.installed-to-develop ## all tests, three files at a time: most of them wait for clocks and engines
	@$(BIN)/pytest -n 3 --dist loadfile $(ARGS)

lint: $(VENV)/.installed-to-develop ## ruff, mypy, the floors, the tidy tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest --quiet tests/tidy

check: lint test ## what .ci/run runs

bench: $(VENV)/.installed-to-run ## cost of a request, a chunk and a held stream, beside nginx where it is installed
	@PYTHONPATH=tests $(BIN)/python -m bench.measure $(ARGS)

test-vllm: $(VENV)/.installed-to-develop $(VLLM_VENV)/.installed ## the same answers through the proxy and from a real vLLM (5 GB of disk, 4 GB of memory)
	@UNDERSTUDY_VLLM_VENV=$(VLLM_VENV) $(BIN)/pytest -m vllm tests/integration/test_real_vllm.py $(ARGS)

lock: ## writes deploy/constraints.txt anew from the newest versions that pyproject.toml allows
	@sh deploy/lock.sh $(PYTHON) $(CONSTRAINTS)

clean: ## removes everything that make made
	rm -rf $(VENV) $(VLLM_VENV) build dist .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that venv writes, so its being there means that the environment is whole.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Understudy needs Python 3.11 or newer; name one with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# The build backend is installed, not fetched by pip on the side, so that its version is held as well.
$(VENV)/.installed-to-run: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	@echo "installing what Understudy needs to run"
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-to-develop: pyproject.toml $(CONSTRAINTS) | $(VENV)/.installed-to-run
	@echo "installing what its tests and linters need"
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

$(VLLM_VENV)/.installed: tests/integration/set_up_vllm.sh
	@echo "setting up a real vLLM in $(VLLM_VENV), which takes minutes"
	@sh tests/integration/set_up_vllm.sh $(PYTHON) $(VLLM_VENV)
	@touch $@
