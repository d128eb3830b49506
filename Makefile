# One command each: `make demo`, `make test`, `make lint`, `make bench`. Everything they need, they set up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := requirements/test.lock

.PHONY: help demo test test-ci lint bench dist clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/.ready: pyproject.toml $(LOCK)
	$(PYTHON) -c 'import sys; sys.exit("nemotron-exec needs Python 3.10 or later, this is " + sys.version.split()[0] + ": set PYTHON=") if sys.version_info < (3, 10) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet -r $(LOCK)
	$(BIN)/pip install --quiet --no-deps -e .
	touch $@
