# Two commands do everything: `make run` shows a running, enforced mesh, `make test` proves it.

VENV   := .venv
PYTHON := $(VENV)/bin/python
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help run test bench lint format setup clean

help:
	@echo "make run    set up what is missing, then run the demo (needs root for bpf(2) and namespaces)"
	@echo "make test   set up what is missing, then run every test (kernel tests when root)"
	@echo "make bench  measure, print a table, write build/bench.json (needs root)"
	@echo "make lint   ruff and mypy"
	@echo "make format let ruff format the sources"
	@echo "make clean  remove the virtual environment and what was built"

setup:
	@contrib/setup/setup.sh

run: setup
	@$(SUDO) $(VENV)/bin/axoneme demo $(ARGS)

test:
	@contrib/setup/setup.sh dev
	@$(PYTHON) -m pytest -n auto --dist loadfile $(ARGS)

bench: setup
	@$(SUDO) $(PYTHON) contrib/bench/run.py $(ARGS)

lint:
	@contrib/setup/setup.sh dev
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

format:
	@$(VENV)/bin/ruff check --fix-only .
	@$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .dev build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
