# Every target installs what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The newest Python that is there, 3.11 or later.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## what can be made
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(VENV)/.made:
	@[ -n "$(PYTHON)" ] || { echo "no Python >= 3.11 found: install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tests/install_debian_packages python3-venv
	@echo "== virtual environment with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.collector: $(VENV)/.made requirements/collector.txt collector/pyproject.toml
	@echo "== the collector and what it needs"
	@$(BIN)/pip install --quiet --require-hashes -r requirements/collector.txt
	@$(BIN)/pip install --quiet --require-hashes -r requirements/build.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable collector
	@touch $@

$(VENV)/.dev: $(VENV)/.collector requirements/dev.txt
	@echo "== Ansible, Molecule and the linters"
	@$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: demo
demo: $(VENV)/.collector ## a simulated room, read live; no root (DEMO_SECONDS=20 ends by itself)
	@$(BIN)/python -m power_collector.demo

.PHONY: rehearse
rehearse: export POWER_ARCH := $(ARCH)
rehearse: $(VENV)/.dev ## root: a virtual Pi from a blank card, provisioned by site.yml, left running (ARCH=arm64: under qemu, slowly)
	@$(BIN)/python -m tests.rehearsal up

.PHONY: rehearse-down
rehearse-down: $(VENV)/.dev ## root: take the rehearsal down, without a trace
	@$(BIN)/python -m tests.rehearsal down

.PHONY: test
test: $(VENV)/.dev ## everything: lint, unit, machine, fault run, molecule; says what ran
	@$(BIN)/python -m tests.all

.PHONY: lint
lint: $(VENV)/.dev ## ruff, mypy, yamllint, ansible-lint, shellcheck
	@command -v shellcheck >/dev/null || tests/install_debian_packages shellcheck
	ruff check .
	ruff format --check .
	mypy
	yamllint --strict .
	ansible-lint --offline --strict
	shellcheck .ci/run tests/install_debian_packages roles/*/files/*.sh tests/vendor/preinst tests/vendor/*/*.sh tests/molecule/*/files/*.sh

.PHONY: unit
unit: $(VENV)/.dev ## tests without a machine
	pytest -m "not machine and not fault_run" --numprocesses logical --dist loadfile --cov=power_collector --cov-report=term-missing:skip-covered

.PHONY: machine
machine: $(VENV)/.dev ## root: tests of the virtual Pi itself
	pytest -m machine

.PHONY: fault-run
fault-run: $(VENV)/.dev ## six minutes of dying devices, databases and collectors, compared with the room's own log
	pytest -m fault_run -s tests/fault_run

.PHONY: molecule
molecule: $(VENV)/.dev ## root: the scenarios under tests/molecule, two at a time (SCENARIOS='default restore')
	@command -v rsync >/dev/null || tests/install_debian_packages rsync
	MOLECULE_GLOB='tests/molecule/*/molecule.yml' $(BIN)/python -m tests.lanes $(SCENARIOS)

CUTS ?= 20
.PHONY: powercut
powercut: $(VENV)/.dev ## root: CUTS=20 power cuts and kills at random moments of site.yml (SEED=... draws the same again)
	@$(BIN)/python -m tests.powercut --cuts $(CUTS) $(if $(SEED),--seed $(SEED))

.PHONY: bench
bench: $(VENV)/.dev ## measure what the collector promises (6 minutes; BENCH_MINUTES=10 for the whole)
	@$(BIN)/python -m bench

.PHONY: pictures
pictures: $(VENV)/.dev ## the dashboards on a real Grafana, photographed: GRAFANA_HOME=DIR (and INFLUXD=FILE)
	@[ -n "$(GRAFANA_HOME)" ] || { echo "name Grafana's folder (bin/, conf/, public/): make pictures GRAFANA_HOME=DIR" >&2; exit 2; }
	@command -v chromium >/dev/null || tests/install_debian_packages chromium
	@$(BIN)/python -m tests.pictures "$(GRAFANA_HOME)"

.PHONY: lock
lock: $(VENV)/.made ## renew the hashed requirements for Python 3.11 and newer
	@$(BIN)/pip install --quiet uv
	cd requirements; for set in collector build dev; do ../$(BIN)/uv pip compile --quiet --upgrade --universal \
		--python-version 3.11 --fork-strategy fewest --generate-hashes --no-strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links $$set.in -o $$set.txt; done
