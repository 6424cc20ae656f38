# `make bench` and `make test` need only Python 3.11 or newer; they create an environment and install eflm into it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: bench test test-all format docs benchmarks clean

bench: $(VENV)/.installed  ## install eflm and run a first benchmark
	$(BIN)/eflm bench --attention nsa --peft dora

test: $(VENV)/.installed-dev  ## check style, types, import directions, and run all tests that are not slow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(VENV)/.installed-dev  ## run all tests, including the slow ones
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

format: $(VENV)/.installed-dev  ## fix style and format automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev  ## write the generated pages and JSON schemas
	$(BIN)/python docs/generate.py
	$(BIN)/python -m eflm_schemas.jsonschema

benchmarks: $(VENV)/.installed-dev  ## install other implementations and compare times with them
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[quant,vision,dev,peers]'
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "eflm needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[quant]'
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[quant,vision,dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis results
