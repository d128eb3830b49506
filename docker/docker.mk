# Makes images and bundles. It needs Python 3.10+ and, for images, an engine; see docs/containers.md.
ENGINE ?= docker
ARCH ?= $(shell uname -m)
IMAGE ?= nemotron-exec
PYTHON_FROM ?= $(BASE_IMAGE)
# Further packages for the launcher's own environment, such as s3fs for a store on S3.
EXTRA_PACKAGES ?=
# Further options for the engine, such as `--isolation chroot` if the builder itself runs in a container.
BUILD_FLAGS ?=
CONTEXT := build/context/$(ARCH)
BUNDLE := build/bundle/nemotron-exec-$(ARCH)
GATHER := build/gather

COMPOSE ?= $(ENGINE) compose

.PHONY: image bundle compose gather image-lock

$(GATHER)/.ready:
	$(PYTHON) -c 'import sys; sys.exit("make image and make bundle need Python 3.10 or later: set PYTHON=") if sys.version_info < (3, 10) else 0'
	$(PYTHON) -m venv $(GATHER)
	touch $@

gather: $(GATHER)/.ready
	$(GATHER)/bin/python docker/gather.py --arch $(ARCH) --out $(CONTEXT) $(EXTRA_PACKAGES:%=--extra %)

image: gather ## add nemotron-exec to BASE_IMAGE= as IMAGE= with ENGINE=docker|podman|buildah
	$(if $(BASE_IMAGE),,$(error make image needs BASE_IMAGE=, the image to add nemotron-exec to))
	$(GATHER)/bin/python docker/entrypoint.py --engine '$(ENGINE)' --base '$(BASE_IMAGE)' > $(CONTEXT)/Dockerfile
	$(ENGINE) build $(BUILD_FLAGS) -f $(CONTEXT)/Dockerfile -t '$(IMAGE)' --build-arg BASE_IMAGE='$(BASE_IMAGE)' \
		--build-arg PYTHON_FROM='$(PYTHON_FROM)' --build-arg EXTRA_PACKAGES='$(EXTRA_PACKAGES)' $(CONTEXT) \
		|| { echo 'make image: if $(BASE_IMAGE) has no Python 3.10 or later, set PYTHON_FROM= to an image that has one, such as python:3.12-slim' >&2; exit 1; }

bundle: gather ## a directory that runs in any container with Python 3.10+, nothing rebuilt (ARCH=x86_64|aarch64)
	$(GATHER)/bin/python docker/bundle.py --context $(CONTEXT) --out $(BUNDLE)

compose: ## two nodes in two containers on this machine, no GPU: docker/compose.yaml
	$(ENGINE) build -f docker/demo.Dockerfile -t nemotron-exec-demo-base .
	$(MAKE) image BASE_IMAGE=nemotron-exec-demo-base IMAGE=nemotron-exec-demo
	$(COMPOSE) -f docker/compose.yaml up

image-lock: $(GATHER)/.ready ## pin anew what images and bundles hold
	$(GATHER)/bin/python -m pip install --quiet uv
	{ echo "# What an image or a bundle holds, for every Python from 3.10 on and both architectures; made by make image-lock."; \
	  $(GATHER)/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --extra wandb pyproject.toml requirements/image.in; } > requirements/image.lock.new
	mv requirements/image.lock.new requirements/image.lock
