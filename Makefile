# make demo: train an agent and look at it. make test: linters and tests. make docs: the pages as a site, in site/.
# Each makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test lint format docs bench clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py

test: lint
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/test.stamp
	$(BIN)/python -m tools.site

bench: $(VENV)/test.stamp
	for name in startup steady speed learning compiled growth worlds tutorial articles targets offline zoo physics minatar atari memory recurrent; do $(BIN)/python -m bench.$$name || exit 1; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Renshu needs Python 3.11 or newer; try make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) .venv-rejax .pytest_cache .ruff_cache .hypothesis build *.egg-info
