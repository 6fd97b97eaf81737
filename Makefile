# `make demo` and `make test` do everything, including the set-up.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := $(or $(POKEVLA_VENV),.venv)
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: help setup environment slurm demo demo-long test test-slurm test-fast lint format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "  The virtual environment is $(VENV); set POKEVLA_VENV to use another."

setup: ## System packages, virtual environment, git pre-commit hook (the other targets do all of this but the hook)
	@scripts/setup.sh --hook

environment:
	@scripts/setup.sh

demo: environment ## The whole pipeline at mini size on a CPU: data, cache, both trainings, trials, report (under 25 minutes on 2 cores)
	$(BIN)/pokevla demo recipes/demo/demo.yaml

demo-long: environment ## The demo with more training, and a policy trained without images (up to 90 minutes on 2 cores)
	$(BIN)/pokevla demo recipes/demo/long.yaml

slurm: ## Packages of a one-machine Slurm, for `make test-slurm` and `pokevla sandbox`
	@scripts/setup.sh --slurm

test-slurm: slurm ## Jobs on a real Slurm with two nodes, started on this machine as root
	$(BIN)/python -m pytest tests/slurm $(PYTEST_ARGS)

test: slurm lint ## All checks: style, types, import layers, then all tests (about 45 minutes on 2 cores)
	$(BIN)/python scripts/run_tests.py $(PYTEST_ARGS)

test-fast: environment ## Unit tests only (4 minutes on 2 idle cores)
	$(BIN)/python scripts/run_tests.py --part parallel tests/unit $(PYTEST_ARGS)

lint: environment ## ruff, import layers, pyright; the fast ones first
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

format: environment ## Format the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove caches and build products; runs/, data/ and the virtual environment stay
	rm -rf build .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
