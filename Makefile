# Each target makes a virtual environment if there is none and installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := reid test bench dev

.PHONY: demo test bench bench-full lint clean

demo: $(VENV)/.reid
	$(BIN)/reid demo

test: $(VENV)/.test
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not aot and not gpu"
	$(BIN)/python -m pytest -q -n 2 -m aot

bench: $(VENV)/.bench
	$(BIN)/python -m pytest benchmarks --save

bench-full: $(VENV)/.bench
	$(BIN)/python -m pytest benchmarks --full --save

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy kernels sparse_vit reid

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(EXTRAS:%=$(VENV)/.%): $(VENV)/.%: $(VENV)/bin/python setup.py
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
