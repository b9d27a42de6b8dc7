# Everything a fresh clone needs is made by the first target that needs it; `make` alone lists the targets.

PYTHON := .venv/bin/python
CODE := crewship workflows activities api worker cli runtime tests examples scripts benchmarks
FOUND = $(wildcard $(CODE))
# What needs no server and no framework.
UNIT := not temporal and not docker and not platform and not server and not frameworks and not fuzz
# Most tests of the real parts wait for something, so files of them can run side by side: WORKERS=2 (tests/conftest.py).
TOGETHER = $(if $(WORKERS),-n $(WORKERS) --dist loadfile --no-loadscope-reorder)

.DEFAULT_GOAL := help
.PHONY: help venv setup demo dev test test-unit test-real frameworks check fmt lint types bench faults audit sbom pin fuzz clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv:
	@scripts/setup.sh

setup: venv ## Get everything: .venv, container engine, Temporal, base image
	@$(PYTHON) -m crewship.provision all

demo: setup ## Deploy, invoke, watch, redeploy and roll back an example, in front of you
	@$(PYTHON) scripts/demo.py

dev: setup ## Run the whole platform on this machine; Ctrl-C stops it
	@.venv/bin/crewship dev

test: setup ## Run all tests, against the real parts (WORKERS=2: in two processes)
	@$(PYTHON) -m crewship.provision minio
	$(PYTHON) -m pytest $(TOGETHER)

test-unit: venv ## Run the tests that need no server and no framework (a minute)
	$(PYTHON) -m pytest -m "$(UNIT)"

test-real: setup ## Run all other tests (WORKERS=2: in two processes)
	@$(PYTHON) -m crewship.provision minio
	$(PYTHON) -m pytest $(TOGETHER) -m "not ($(UNIT))"

frameworks: venv ## Run the tests against the newest and the oldest supported frameworks
	$(PYTHON) -m pytest -m "frameworks and not docker and not platform"

check: lint types test ## All that must be true of a commit: format, lint, types, tests

fmt: venv ## Format the code
	$(PYTHON) -m ruff format $(FOUND)
	$(PYTHON) -m ruff check --fix $(FOUND)

lint: venv ## Check format and lint
	$(PYTHON) -m ruff format --check $(FOUND)
	$(PYTHON) -m ruff check $(FOUND)

types: venv ## Check the types (mypy, strict)
	$(PYTHON) -m mypy

bench: setup ## Measure what the design promises, against its baselines; writes docs/benchmarks.md
	$(PYTHON) -m benchmarks --write

faults: setup ## Kill every process at bad moments and check each log
	$(PYTHON) -m pytest tests/faults --trials $(or $(TRIALS),30)

audit: venv ## Check the locked dependencies for known vulnerabilities
	@$(PYTHON) scripts/audit.py $(if $(REQUIRED),--required)

sbom: venv ## Write dist/crewship.cdx.json: what the platform is made of (CycloneDX)
	@mkdir -p dist
	@.venv/bin/uv export --frozen --no-dev --quiet --format cyclonedx1.5 --preview-features sbom-export -o dist/crewship.cdx.json
	@echo dist/crewship.cdx.json

pin: venv ## Write docker-compose.override.yml: the images of docker-compose.yml that are pulled, by their digests
	@$(PYTHON) scripts/pin_images.py

fuzz: venv ## Call every operation of the API with thousands of inputs (CASES=10000)
	CREWSHIP_FUZZ_CASES=$(or $(CASES),10000) $(PYTHON) -m pytest tests/fuzz -s

clean: ## Remove what the tools left in this folder; caches and data of the platform stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
