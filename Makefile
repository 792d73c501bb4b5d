# `make search` and `make test` do all of their own set-up; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
READY := $(VENV)/ready-data
READY_DEV := $(VENV)/ready-dev
READY_DOCS := $(VENV)/ready-docs
READY_SCALE := $(VENV)/ready-scale

.DEFAULT_GOAL := help
.PHONY: help search test test-scale lint format docs figures clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

search: $(READY)  ## search an architecture for the bundled digits, about a minute
	@$(BIN)/machgraph search digits

test: $(READY_DEV)  ## every test and doctest
	@$(BIN)/python -m pytest

test-scale: $(READY_SCALE)  ## the tests of searches beyond one machine: a Ray cluster, PostgreSQL
	@$(BIN)/python -m pytest -m scale tests/test_cluster.py tests/test_postgres.py

lint: $(READY_DEV)  ## style, format, types, and which module may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet || { echo "not formatted: run make format"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(READY_DEV)  ## rewrite the files as `make lint` wants them
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

docs: $(READY_DOCS)  ## the documentation as pages, into build/docs; a warning is an error
	@$(BIN)/python -m doctest docs/site/docstrings.py
	@# not --quiet, which would let warnings pass
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "build/docs/index.html"

figures: $(READY)  ## the paper's figures, from figures/ as SVG and PNG
	@for file in figures/[a-z]*.py; do $(BIN)/python -m figures.$$(basename $$file .py) || exit 1; done

clean:  ## remove the virtual environment and caches; runs/ stays
	@rm -rf $(VENV) build dist .*_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

# Installed anew only when the metadata or the pinned versions are newer than the stamp.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$$($(PYTHON) --version) is too old: machgraph needs 3.11; name one with make PYTHON=..."; exit 1; }
	@echo "installing into $(VENV), once (some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable '.[data,fast]'
	@$(BIN)/python -m machgraph.warm_up
	@touch $@

$(READY_DEV): $(READY)
	@$(INSTALL) --editable '.[data,fast,dev]'
	@touch $@

$(READY_SCALE): $(READY_DEV)
	@$(INSTALL) --editable '.[data,fast,dev,distributed,postgres]'
	@touch $@

$(READY_DOCS): $(READY)
	@$(INSTALL) --editable '.[data,fast,docs]'
	@touch $@
