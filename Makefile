# make demo and make test do all their set-up: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := train,figures,data,seg,export,dev

.PHONY: faults demo test lint bench coverage clean help

help:
	@echo "make demo    the whole idea in a few minutes; the report lands in runs/demo"
	@echo "make test    all tests"
	@echo "make lint    ruff and mypy"
	@echo "make faults  kills, full disks and dead processes against the real command line (docs/reliability.md; half an hour)"
	@echo "make bench   the standing benchmarks"
	@echo "make coverage  which of timm's architectures become elastic (docs/coverage.md; about an hour)"

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "torch" "torchvision"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

demo: $(READY)
	$(BIN)/elastic demo --overwrite -o runs/demo

test: $(READY)
	$(BIN)/elastic doctor  # compiles the native kernels where that was not done yet, so that no test waits for it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks

faults: $(READY)
	$(BIN)/python tests/faults -o docs/reliability.md

clean:
	rm -rf $(VENV) build dist src/*.egg-info

coverage: $(READY)
	$(BIN)/python -m elastic_cnn.analysis.coverage docs/coverage.md
