.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The machine's own Python, 3.11 or newer. Everything else runs in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo up down unit test soak chaos bench bench-keep bench-compare corpus check format lock sbom pin clean environment

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: environment ## Start everything, launch examples/fullstack and print the URL of its preview
	@$(BIN)/sandbox demo

up: environment ## Start everything: container engine, runtime images, database, service
	@$(BIN)/sandbox up

down: ## Stop what was started; data stays
	@if [ -x $(BIN)/sandbox ]; then $(BIN)/sandbox down; fi

# A file is never split, because its tests may share a fixture; the order is that of the command line.
PARALLEL := --dist loadfile --no-loadscope-reorder
# Of `make test`. More of them take longer on two cores, because containers, databases and browsers need these as well.
WORKERS ?= 2

unit: environment ## Run the tests that need neither a container engine nor root nor a browser (a minute or two)
	@$(BIN)/pytest -n logical --maxprocesses 8 $(PARALLEL) tests/unit tests/contract -m "not engine and not root and not browser"

test: environment ## Run all tests, with what they need; TESTS="tests/unit -k name" runs some, WORKERS=4 more at once
	@$(BIN)/python tests/prerequisites.py $(BIN)/pytest -n $(WORKERS) $(PARALLEL) $(if $(TESTS),$(TESTS),tests/acceptance tests/integration tests/contract tests/unit)

soak: environment ## Kill the service 200 times during launches, then send it damaged input (SOAK_KILLS, SOAK_INPUTS, SOAK_EXAMPLES, SOAK_SEED)
	@$(BIN)/python tests/prerequisites.py $(BIN)/pytest -s tests/soak

chaos: environment ## Let 1000 faults happen under load, count what is lost (CHAOS_FAULTS, _MINUTES, _SEED, _KINDS, _REPORT)
	@$(BIN)/python tests/prerequisites.py unshare --net --mount $(BIN)/python -m tests.chaos

bench: environment ## Measure, each figure as a ratio against its reference; BENCH="bench_api bench_records" runs some
	@$(BIN)/python tests/prerequisites.py $(BIN)/python -m tests.bench $(BENCH)

bench-keep: environment ## Measure, and keep the ratios in tests/bench/kept.json as those to compare with
	@$(BIN)/python tests/prerequisites.py $(BIN)/python -m tests.bench --keep $(BENCH)

bench-compare: environment ## Measure, and print which ratios differ by more than a quarter from those that were kept
	@$(BIN)/python tests/prerequisites.py $(BIN)/python -m tests.bench --compare $(BENCH)

corpus: environment ## Launch projects of many frameworks without configuration; writes docs/corpus.md (about an hour)
	@$(BIN)/sandbox up
	@$(BIN)/python -m tests.corpus $(CORPUS)

check: environment ## Lint, formatting, types, which package may import which; the same and unit tests of the console
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/console.py check

format: environment ## Format the code and fix what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

sbom: environment ## Write bills of materials (CycloneDX) of the service, the console and the images to dist/sbom
	@$(BIN)/python -m scripts.sbom

pin: environment ## Write the digests that the tags of images have now into runtimes/ and docker-compose.yml
	@$(BIN)/python -m scripts.pin_images

lock: environment ## Update uv.lock to the newest versions that pyproject.toml allows
	@$(BIN)/uv lock --upgrade --default-index https://pypi.org/simple

clean: ## Remove the environment and the caches; data stays
	rm -rf .venv console/node_modules sandbox/console/built .sandbox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Takes a fraction of a second when the environment is up to date.
environment:
	@$(PYTHON) -I scripts/environment.py
