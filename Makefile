# make demo and make test do all their set-up: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := dev,docs
ESLINT := $(VENV)/eslint/node_modules/.bin/eslint

.PHONY: faults demo docs test test-quick test-floor lint eslint format aarch64 bench coverage clean help
CPP := $(wildcard src/elastic_cnn/kernels/cpu/*/*.cpp src/elastic_cnn/kernels/cpu/*/*.h src/elastic_cnn/analysis/benchmark/*.cpp)

help:
	@echo "make demo    the whole idea in a few minutes; the report lands in runs/demo"
	@echo "make test    all tests"
	@echo "make test-quick  the tests that train nothing and start no processes"
	@echo "make test-floor  the tests on the lowest versions of everything that is declared (an hour)"
	@echo "make docs    the documentation with its reference and search, in build/site; warnings are errors"
	@echo "make lint    ruff, mypy, pyright, clang-format and eslint (make format lays sources out)"
	@echo "make aarch64 whether the native kernels' sources compile for 64-bit ARM, where a cross compiler is at hand"
	@echo "make faults  kills, full disks and dead processes against the real command line (docs/reliability.md; half an hour)"
	@echo "make bench   the standing benchmarks"
	@echo "make coverage  which of timm's architectures become elastic (docs/coverage.md; about an hour)"

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "torch" "torchvision"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

demo: $(READY)
	$(BIN)/elastic demo --overwrite -o runs/demo

test-floor: $(READY)
	.ci/floor

test: $(READY)
	$(BIN)/elastic doctor  # compiles the native kernels where that was not done yet, so that no test waits for it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -rs

test-quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=src $(BIN)/mypy --strict --follow-imports=silent tests/typed/program.py
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/clang-format --dry-run --Werror $(CPP)

	if command -v npm >/dev/null; then $(MAKE) --no-print-directory eslint; else echo "no npm: the explorer's scripts are not checked"; fi

eslint:
	test -x $(ESLINT) -a -d $(VENV)/eslint/node_modules/axe-core || \
		npm install --prefix $(VENV)/eslint --no-audit --no-fund --silent eslint@9.39.5 axe-core@4.14.1
	$(ESLINT) -c src/elastic_cnn/policy/explorer/eslint.config.mjs src/elastic_cnn/policy/explorer/static src/elastic_cnn/serve/static

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

aarch64: $(READY)
	$(BIN)/python tests/kernels/aarch64.py

bench: $(READY)
	$(BIN)/python -m benchmarks

faults: $(READY)
	$(BIN)/python tests/faults -o docs/reliability.md

clean:
	rm -rf $(VENV) build dist src/*.egg-info

coverage: $(READY)
	$(BIN)/python -m elastic_cnn.analysis.coverage docs/coverage.md
