# `make help` lists what there is. Every target first makes .venv where it is missing.
.DEFAULT_GOAL := help
.PHONY: help install demo check format test test-all bench bench-train bench-serve soak ablation clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
RUN ?= runs/demo
STAMP := .venv/installed
BENCH_STAMP := .venv/installed-bench
OPTIONS ?=
JOBS ?= 2

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

install: $(STAMP) ## Make .venv with the package and its tools, from constraints.txt
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP) ## The whole job on the bundled sample: a submission and a report, in minutes
	$(BIN)/desmatch run --recipe demo --data data/sample --out $(RUN)
	$(BIN)/desmatch submit --check $(RUN)/submission/result.zip --test data/sample/test.tsv
	$(BIN)/desmatch evaluate $(RUN) --labels data/sample/test_labels.tsv

check: $(STAMP) ## Style, types and layers, in seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP) ## All tests that need neither a GPU nor a network, JOBS=2 at once
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile

test-all: $(STAMP) ## The slow tests too
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not gpu" --numprocesses $(JOBS) --dist loadfile

bench: $(STAMP) ## The benchmarks, one after the other
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_read.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_graph.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_partition.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_lexical.py --labels data/sample/test_labels.tsv
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_bulk.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_scale.py --quick
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_anonymize.py

bench-train: $(BENCH_STAMP) ## Speed of training beside two other libraries; OPTIONS="--data DIR --threads N"
	$(BIN)/python benchmarks/bench_train.py $(OPTIONS)
$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

bench-serve: $(STAMP) ## Milliseconds of an answer over HTTP at BERT-base's size; OPTIONS="--pairs N"
	$(BIN)/python benchmarks/bench_serve.py $(OPTIONS)

soak: $(STAMP) ## An hour of kills, full disks, damaged and malformed files; OPTIONS="--minutes N --seed K"
	$(BIN)/python benchmarks/soak.py $(OPTIONS)

ablation: $(STAMP) ## What each technique is worth; OPTIONS="--data DIR --init CHECKPOINT --minutes N"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ablation.py $(OPTIONS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ablation.py $(OPTIONS) --table

clean: ## Drop caches; data, runs and .venv stay
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build dist
	find src tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
