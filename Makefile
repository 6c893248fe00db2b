# Everything sets itself up: on a fresh Debian 12 or 13, as root, `make run` and `make test` are all there is to do.
.DEFAULT_GOAL := help
.PHONY: help run test lint fmt bench clean setup setup-dev packages images operators test-fast test-upstream lock package image image-keys channel image-lock test-vm
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
ARCH ?= $(shell dpkg --print-architecture)
DATA ?= /var/lib/pinnace
WORKERS ?= 2
# The runtime, and static programs that become the images of a node without a registry.
PACKAGES := containerd runc containernetworking-plugins nftables conntrack iproute2 busybox-static catatonit ca-certificates e2fsprogs mount python3-venv
TEST_PACKAGES := dnsutils faketime dosfstools mtools
VM_PACKAGES := qemu-system-x86 qemu-system-arm ovmf mtools dosfstools squashfs-tools openssh-client busybox-static
BOARD ?= x86-64

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup images ## Set up what is missing and run a node in the foreground (ARGS="--flag …")
	@exec $(BIN)/pinnace server --data-dir=$(DATA) $(ARGS)

test: setup-dev lint ## Set up what is missing; style, types, then every test
	@echo "== tests of the parts"
	$(BIN)/python -m pytest -q -n $(WORKERS) tests/test_repo.py tests/unit tests/conformance
	@echo "== tests on the real kernel and the real containerd"
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile tests/host
	@echo "== tests of the whole node"
	@# A folder with a short name: sockets lie deep within it, and their paths must not be long.
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --basetemp=$$(mktemp -d /tmp/p-XXXX)/t tests/e2e

image: setup ## Image and update bundle (BOARD=x86-64|rpi-arm64 VERSION=… LEVEL=1..22 KEYS=…), in build/<board>/
	@cd image-build && ../$(BIN)/python -m appliance.run $(BOARD) $(addprefix --version=,$(VERSION)) $(addprefix --level=,$(LEVEL)) $(addprefix --keys=,$(abspath $(KEYS)))

test-vm: setup-dev .cache/vm-packages ## Start images in QEMU: builds them, takes hours without KVM (ARGS=tests/vm/test_boot.py)
	$(BIN)/python -m pytest -q -o timeout=3600 $(or $(ARGS),tests/vm)

package: setup ## Pinnace for a plain Debian, signed (ARCH=amd64|arm64), in build/package/
	@cd image-build && ../$(BIN)/python -m appliance.package $(ARCH)

image-keys: setup ## The keys that images and packages are signed with, in build/keys: made once, keep them
	@cd image-build && ../$(BIN)/python -m appliance.keys ../build/keys

channel: setup ## A signed channel for plans to follow (FOLDER=/srv/stable BUNDLES=… ARGS="--latest=v… --days=90")
	@cd image-build && ../$(BIN)/python -m appliance.channel $(abspath $(FOLDER)) $(abspath $(BUNDLES)) --keys=$(abspath $(or $(KEYS),build/keys)) $(ARGS)

test-upstream: setup-dev ## Build upstream's Kubernetes (needs Go, takes minutes), and test the operators on it
	$(BIN)/python -m tests.upstream.build
	$(BIN)/python -m pytest -q tests/host/operators/test_elsewhere_helm.py tests/host/operators/test_elsewhere_pods.py \
		tests/host/operators/test_elsewhere_upgrade.py tests/host/operators/test_upgrade_elsewhere.py

operators: setup ## The image and the chart of the operators for another Kubernetes, in build/
	@$(BIN)/python image-build/operators_image.py build

test-fast: ## The tests that need no root, without set-up
	$(BIN)/python -m pytest -q -n $(WORKERS) tests/test_repo.py tests/unit tests/conformance

lint: setup-dev ## Style, types, import directions
	@echo "== style"
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@echo "== types"
	@$(BIN)/mypy
	@echo "== import directions"
	@$(BIN)/lint-imports --no-cache >.cache/imports.log || { cat .cache/imports.log; exit 1; }

fmt: ## Format and fix what can be fixed
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: setup-dev images ## Measure, and write docs/benchmarks.md
	$(BIN)/python -m tests.bench.report

lock: ## Pin the dependencies anew (needs uv)
	@for set in build runtime dev traefik; do uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --upgrade requirements/$$set.in -o requirements/$$set.txt; done

image-lock: .cache/runtime ## Lock the Debian packages of images anew, as this machine's mirrors have them
	@cd image-build && ../$(BIN)/python -m appliance.lock

clean: ## Remove what was set up here (not the data)
	rm -rf $(VENV) .cache controlplane/deploy/static .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

setup: .cache/packages .cache/runtime .cache/charts
setup-dev: .cache/packages .cache/test-packages .cache/dev .cache/charts .cache/ingress

images: .cache/packages .cache/runtime
	@echo "== images of a node without a registry"
	@$(BIN)/python image-build/images.py $(DATA)/agent/images
ifeq (,$(findstring traefik,$(ARGS)))
	@echo "== image of the ingress controller (Traefik), fetched once"
	@$(BIN)/python image-build/traefik.py $(DATA)/agent/images
endif

# A stamp says what was set up; it holds the names, so that a longer list is set up again.
.cache/packages: Makefile
	@mkdir -p .cache
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  [ $$(id -u) = 0 ] || { echo "as root, run: apt-get install $$missing"; exit 1; }; \
	  echo "== Debian packages:" $$missing; \
	  apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >.cache/apt.log 2>&1 || { tail -20 .cache/apt.log; exit 1; }; \
	fi
	@touch $@

.cache/vm-packages: Makefile
	@missing=$$(for p in $(VM_PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "== Debian packages for virtual machines:" $$missing; \
	  apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >.cache/apt.log 2>&1 || { tail -20 .cache/apt.log; exit 1; }; fi
	@touch $@

.cache/test-packages: Makefile
	@missing=$$(for p in $(TEST_PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "== Debian packages for tests:" $$missing; \
	  apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >.cache/apt.log 2>&1 || { tail -20 .cache/apt.log; exit 1; }; fi
	@touch $@

$(BIN)/python: | .cache/packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: PYTHON=python3.11 make …"; exit 1; }
	@echo "== virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

.cache/runtime: requirements/runtime.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@echo "== Python packages"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.cache/charts: $(shell find charts -type f) image-build/charts.py .cache/runtime
	@echo "== charts of packaged components"
	@$(BIN)/python image-build/charts.py --packaged >/dev/null
	@touch $@

# For the tests; without it those of Traefik are skipped and say so.
.cache/ingress: requirements/traefik.txt image-build/traefik.py .cache/runtime
	@echo "== image of the ingress controller (Traefik), fetched once"
	@$(BIN)/python image-build/traefik.py .cache/traefik/images
	@if [ -e .cache/traefik/images/pinnace-traefik.tar ]; then touch $@; fi

.cache/dev: requirements/dev.txt .cache/runtime
	@echo "== Python packages for tests"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@
