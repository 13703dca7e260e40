# Each target is a line or two that a person could type; the first run makes .venv and installs into it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test oldest lint bench

help:  ## Say what can be made
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/'

demo: $(VENV)/installed-train  ## Train a point-cloud classifier on shapes made on the spot (minutes, CPU)
	$(BIN)/python experiments/modelnet10.py --accelerator cpu --points 256 --epochs 30 --scale 1 --rotate \
		--resume --output runs/demo

test: $(VENV)/installed-dev  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 8  # a process a core, so one thread each

oldest:  ## Run the tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install -qq --upgrade pip uv
	$(VENV)-oldest/bin/uv pip install -q --python $(VENV)-oldest --resolution lowest-direct --editable '.[dev]'
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/pytest -n logical --maxprocesses 8 -o filterwarnings=  # theirs are known

lint: $(VENV)/installed-dev  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/installed-dev  ## Time layers and networks beside their peers and the floor (minutes)
	$(BIN)/python experiments/benchmark.py

$(VENV)/installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v < (3, 11) and sys.exit("mgic_geo needs Python 3.11 or newer, but $(PYTHON) is %d.%d; run: make PYTHON=python3.11 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --upgrade pip
	@echo "installing into $(VENV); PyTorch is large, so this takes a minute or more"
	$(BIN)/pip install -qq --editable '.[$*]'
	@touch $@
