# Each target works on a fresh machine with Python 3.11: it sets itself up first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Index of PyTorch; empty: pip's own index, whose Linux wheels include CUDA. For the CPU build:
# make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: setup demo test test-fast fuzz lint docs wheel test-wheel leaderboard clean

setup: .venv/.ready

# PyTorch is installed first and pinned, so that no other package installs another version.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/assay demo

test: setup
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

# Everything but the tests marked slow: under two minutes on two cores.
test-fast: setup
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

# Changed inputs for every reader of foreign files; make fuzz CASES=100000 takes about an hour.
CASES ?= 3000
fuzz: setup
	$(BIN)/python -m fuzz.run --cases $(CASES) --jobs 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/structure.py --check
	$(BIN)/python tools/prose.py --check

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: setup
	$(BIN)/pip wheel -q --no-deps --wheel-dir dist .

# The wheel in an empty environment, outside this folder.
test-wheel: wheel
	tools/test_wheel.sh dist/assay-*.whl

# A page of each matrix with kept records, and an index page.
leaderboard: setup
	$(BIN)/python benchmarks/run.py matrices pages leaderboard

clean:
	rm -rf .venv build dist leaderboard
