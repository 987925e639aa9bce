# Two commands for newcomers: `make demo` and `make test`. They set everything up in .venv and target.
# `make check` and `make test` are what CI runs.

PYTHON ?= $(shell tools/find-python)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# pyo3 asks this interpreter what to build for; one answer for cargo and maturin saves a rebuild.
export PYO3_PYTHON = $(CURDIR)/$(BIN)/python
export VIRTUAL_ENV = $(CURDIR)/$(VENV)

.PHONY: help demo test check fix bench docs wheel clean tools

help:
	@echo 'make demo    build, then store real files, lose drives, read everything back, rebuild'
	@echo 'make test    build, then run every test'
	@echo 'make check   formatting, lints, types, stubs, layering'
	@echo 'make fix     format and regenerate what is generated'
	@echo 'make bench   measure against plain file copies and other libraries'
	@echo 'make wheel   build the wheel into dist/'
	@echo 'make clean   remove what these commands made'

tools:
	@tools/check-tools "$(PYTHON)"

$(VENV)/.build: requirements-build.txt | tools
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) install -r requirements-build.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.build
	$(PIP) install -r requirements-dev.txt
	@touch $@

# A peer that does not install is missing in the table, no more.
$(VENV)/.bench: requirements-bench.txt $(VENV)/.dev
	-grep -v '^#' requirements-bench.txt | while read peer; do $(PIP) install "$$peer" || echo "$$peer is left out"; done
	@touch $@

demo: $(VENV)/.build
	$(BIN)/maturin develop --quiet --release
	$(BIN)/dwkernel demo

test: $(VENV)/.dev
	cargo test --workspace --quiet
	cargo test --quiet -p dwk-queue --features loom --test loom
	cargo test --quiet -p dwk-queue --features shuttle --test shuttle
	tools/test-aarch64
	$(BIN)/maturin develop --quiet --profile dev
	tools/get-servers $(VENV)/servers
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -p no:benchmark

check: $(VENV)/.dev
	$(BIN)/maturin develop --quiet --profile dev
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest dwkernel._native
	tools/check-deny
	tools/check-workflows $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_tidy.py

fix: $(VENV)/.dev
	$(BIN)/maturin develop --quiet --profile dev
	cargo fmt --all
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python -m dwkernel._docs

bench: $(VENV)/.bench
	$(BIN)/maturin develop --quiet --release
	$(BIN)/python -m benches
	cargo bench --quiet -p dwk-chunk --bench hashing
	cargo bench --quiet -p dwk-queue --bench queue
	cargo bench --quiet -p dwk-bus --bench bus
	cargo bench --quiet -p dwk-stream --bench publish
	cargo bench --quiet -p dwk-journal --bench commit
	cargo bench --quiet -p dwk-meta --bench store
	cargo bench --quiet -p dwk-pool --bench stripe
	cargo bench --quiet -p dwk-drive --bench local

wheel: $(VENV)/.build
	$(BIN)/maturin build --out dist

clean:
	cargo clean --quiet
	rm -rf $(VENV) dist bench-results demo-store demo-report.html .mypy_cache .ruff_cache \
	    .pytest_cache .hypothesis .benchmarks python/dwkernel/*.so
	find python tests benches tools -name __pycache__ -type d -exec rm -rf {} +
