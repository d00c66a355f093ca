# `make demo` and `make test` work on a fresh machine with Python 3.11: each sets itself up first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Where PyTorch comes from; empty: pip's own index, whose wheels for Linux bring CUDA along. The CPU build:
# make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: setup demo test leaderboard lint clean

setup: .venv/.ready

# PyTorch comes first and pinned, so that no other package can pull a different one in.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/assay demo

test: setup
	$(BIN)/pytest -n auto --dist loadfile

# A page of each of the matrices whose records are kept in benchmarks/results/matrices.
leaderboard: setup
	$(BIN)/python benchmarks/run.py matrices pages leaderboard

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist
