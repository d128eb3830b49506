# One command each: `make demo`, `make test`, `make lint`, `make bench`. Everything that they need, they set up.
PYTHON ?= python3
VENV ?= .venv
# The CPU build where the index has one under this number; any PyTorch will do for the demo.
TORCH ?= torch==2.13.0
# More than there are cores: most tests wait for processes that they have started.
WORKERS ?= 4

BIN := $(VENV)/bin
# People get the newest versions that pyproject.toml admits; CI gets exactly those of the lock.
PIP := $(BIN)/pip install --quiet $(if $(CI),--constraint requirements/ci.lock)

.PHONY: help demo test test-ci test-wandb test-omegaconf chaos lint format bench docs reference screenshots dist lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "nemotron-exec needs Python 3.10 or later, and $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

# The project itself, and what examples/ trains with: PyTorch, and the wheels of Megatron-Bridge without the packages
# that only a GPU needs.
$(VENV)/.demo: $(VENV)/.made pyproject.toml requirements/frameworks.txt
	$(PIP) --editable .
	$(PIP) '$(TORCH)' numpy packaging
	$(PIP) --no-deps --requirement requirements/frameworks.txt
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) --group test
	@touch $@

$(VENV)/.ci: $(VENV)/.test
	$(PIP) --group ci --group docs --group dist --group lint
	@touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(PIP) --group docs --editable .
	@touch $@

$(VENV)/.lint: $(VENV)/.made pyproject.toml
	$(PIP) --group lint --editable .
	@touch $@

demo: $(VENV)/.demo ## the main job: an artifact, two training stages under torchrun, their lineage
	examples/demo.sh $(BIN)

test: $(VENV)/.test ## every test that needs no container engine and no further framework
	$(BIN)/python -m pytest -m 'not ci' --numprocesses $(WORKERS) $(PYTEST_ARGS)

test-ci: $(VENV)/.ci ## the tests of CI: containers, pretrain() of Megatron-Bridge, versions of wandb and OmegaConf (50 minutes)
	$(BIN)/python -m pytest -m ci --numprocesses $(WORKERS) $(PYTEST_ARGS)

test-wandb: $(VENV)/.test ## lineage, checkpoints and resolution under wandb 0.22.0, 0.27.2 and the newest (8 minutes)
	$(BIN)/python -m pytest tests/test_wandb_versions.py -m ci $(PYTEST_ARGS)

test-omegaconf: $(VENV)/.test ## the tests of the config under the newest OmegaConf 2.4 (2 minutes)
	$(BIN)/python -m pytest tests/test_omegaconf_versions.py -m ci $(PYTEST_ARGS)

bench: $(VENV)/.test ## the cost beside that of the peers, with a verdict per bar (ten minutes)
	$(BIN)/python -m benchmarks

chaos: $(VENV)/.test ## thousands of launchers killed and stopped at random points
	$(BIN)/python tests/chaos.py --seeds 0:5000 --jobs 24

lint: $(VENV)/.lint ## format, lint and type-check
	$(BIN)/ruff format $(if $(CI),--check) .
	$(BIN)/ruff check $(if $(CI),,--fix) .
	$(BIN)/mypy

docs: $(VENV)/.docs ## the pages as a site in site/; a warning is an error
	$(BIN)/mkdocs build --quiet --strict

reference: $(VENV)/.docs ## write the pages that come from the code: docs/reference.md, docs/errors.md
	$(BIN)/python docs/tools/reference.py
	$(BIN)/python docs/tools/catalogue.py

screenshots: $(VENV)/.docs ## draw docs/assets/*.svg from what --dry-run and --doctor print
	$(BIN)/python docs/tools/screenshots.py

dist: $(VENV)/.made ## wheel and sdist in dist/
	$(PIP) --group dist
	$(BIN)/python -m build --outdir dist .

lock: ## pin what CI installs: requirements/ci.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet --upgrade 'pip>=25.1'
	build/lock/bin/pip install --quiet '$(TORCH)' numpy packaging --group test --group ci --group docs --group dist --group lint .
	build/lock/bin/pip freeze --exclude nemotron-exec | sed 's/+cpu$$//' > requirements/ci.lock

include docker/docker.mk

clean: ## remove what make has made
	rm -rf $(VENV) .venvs build dist .demo .pytest_cache .hypothesis .mypy_cache .ruff_cache
