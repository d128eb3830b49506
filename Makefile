# Each of `make demo`, `make test`, `make lint` and `make bench` sets up everything that it needs.
PYTHON ?= python3
VENV ?= .venv
# This is the CPU build if the index has one under this number. The demo runs with any PyTorch.
TORCH ?= torch==2.13.0
# There may be more workers than cores: most tests wait for processes that they have started.
WORKERS ?= 4

# Images set this variable. The tests start thousands of Pythons, and each would compile the launcher anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
# People get the newest versions that pyproject.toml admits; CI gets exactly those of the lock.
# With -qq pip prints errors only: otherwise it would warn each time of a missing find-links directory in a pip.conf.
PIP := $(BIN)/pip install -qq --no-warn-conflicts $(if $(CI),--constraint requirements/ci.lock)

.PHONY: help demo test test-ci test-wandb test-omegaconf test-frameworks test-slurm chaos mutants lint format bench docs reference screenshots dist lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "nemotron-exec needs Python 3.10 or later, and $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --no-warn-conflicts --upgrade 'pip>=25.1'
	@touch $@

# Installs the project, and for examples/ PyTorch and the wheels of Megatron-Bridge, without the packages that only a
# GPU needs.
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

# The tests marked wandb_matrix run in test-wandb, which test-ci includes, under three versions of wandb.
test: $(VENV)/.test ## every test that needs no container engine and no further framework (4 minutes)
	$(BIN)/python -m pytest -m 'not ci and not wandb_matrix' --numprocesses $(WORKERS) --durations 25 $(PYTEST_ARGS)

# The tests that train with whole frameworks, in environments of their own under .venvs/.
FRAMEWORKS := $(addprefix tests/payload/checkpoints/test_,checkpoint_automodel.py checkpoint_megatron_lm.py \
	checkpoint_pretrain.py exports.py front_page_config.py other_trainers.py)

test-ci: $(VENV)/.ci ## the tests of CI: containers, Slurm, frameworks, versions of wandb and OmegaConf (17 minutes)
	$(BIN)/python -m pytest -m ci --numprocesses $(WORKERS) --dist loadgroup --durations 25 $(PYTEST_ARGS)

test-frameworks: $(VENV)/.ci ## of them, those that train with Megatron-Bridge, Megatron-LM, Automodel and other trainers
	$(BIN)/python -m pytest $(FRAMEWORKS) -m ci --numprocesses $(WORKERS) --dist loadgroup --durations 10 $(PYTEST_ARGS)

test-wandb: $(VENV)/.test ## lineage, checkpoints and resolution under wandb 0.22.0, 0.27.2 and the newest (8 minutes)
	$(BIN)/python -m pytest tests/stores/wandb/test_wandb_versions.py -m ci $(PYTEST_ARGS)

test-omegaconf: $(VENV)/.test ## the tests of the config under the newest OmegaConf 2.4 (2 minutes)
	$(BIN)/python -m pytest tests/config/test_omegaconf_versions.py -m ci $(PYTEST_ARGS)

test-slurm: $(VENV)/.ci ## launch paths on a real Slurm of four virtual nodes, Open MPI and MPICH: as root, after .ci/engines (5 minutes)
	$(BIN)/python -m pytest tests/slurm -m ci --numprocesses $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

bench: $(VENV)/.test ## the cost beside that of the peers, with a verdict per bar (14 minutes)
	$(BIN)/python -m benchmarks

mutants: $(VENV)/.test ## which promises no test would miss: listed steps taken out, and a random sample of changes (25 minutes)
	$(PIP) --group mutants
	$(BIN)/python tests/mutants/run.py $(MUTANTS)

chaos: $(VENV)/.test ## thousands of launchers killed and stopped at random points, and trainers that save, also while W&B fails
	$(BIN)/python tests/support/chaos.py --seeds 0:5000 --jobs 24
	$(BIN)/python tests/support/chaos_saves.py --seconds 600
	$(BIN)/python tests/support/chaos_wandb.py --seconds 600

lint: $(VENV)/.lint ## format, lint, type-check, and which package may import which
	$(BIN)/ruff format $(if $(CI),--check) .
	$(BIN)/ruff check $(if $(CI),,--fix) .
	$(BIN)/mypy
	cd sitecustomize && $(abspath $(BIN))/lint-imports ../pyproject.toml --no-cache --no-logo

# The site contains the package that draws diagrams, so its pages work offline. Without npm, pages load that package
# from the network.
MERMAID ?= mermaid@11.6.0

build/mermaid/mermaid.min.js:
	@mkdir -p build/mermaid
	@if command -v npm > /dev/null && npm pack --silent --pack-destination build/mermaid $(MERMAID) > /dev/null; then \
		tar -xzf build/mermaid/mermaid-*.tgz -C build/mermaid --strip-components 2 package/dist/mermaid.min.js; \
	else echo "without npm, diagrams need the network: $(MERMAID) was not fetched"; fi

docs: $(VENV)/.docs build/mermaid/mermaid.min.js ## the pages as a site in site/; a warning is an error
	$(BIN)/mkdocs build --quiet --strict

reference: $(VENV)/.docs ## write what comes from the code: docs/reference.md, docs/errors.md, docs/json.md, docs/recipes.md, ARCHITECTURE's packages
	$(BIN)/python docs/tools/reference.py
	$(BIN)/python docs/tools/catalogue.py
	$(BIN)/python docs/tools/packages.py
	$(BIN)/python docs/tools/schemas.py
	$(BIN)/python docs/tools/recipes.py

screenshots: $(VENV)/.docs ## draw docs/assets from what the programs print, 80 and 128 columns wide
	$(BIN)/python docs/tools/screenshots.py

dist: $(VENV)/.made ## wheel and sdist in dist/
	$(PIP) --group dist
	$(BIN)/python -m build --outdir dist .

lock: ## pin what CI installs: requirements/ci.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet --upgrade 'pip>=25.1'
	build/lock/bin/pip install --quiet '$(TORCH)' numpy packaging --group test --group ci --group docs --group dist --group lint --group mutants .
	build/lock/bin/pip freeze --exclude nemotron-exec | sed 's/+cpu$$//' > requirements/ci.lock

include docker/docker.mk

clean: ## remove what make has made
	rm -rf $(VENV) .venvs build dist .demo .pytest_cache .hypothesis .mypy_cache .ruff_cache
