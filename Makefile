# What people and CI call. Each command sets up all it needs in .venv and .cache; only Python >= 3.11 is needed.
.DEFAULT_GOAL := help
.PHONY: help demo test faults dev up bench docs check audit format runtime setup clean

bin := .venv/bin
ARGS ?=

# These would otherwise look for newer versions, or write below the home directory.
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/.cache
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# Tests start hundreds of interpreters. Compiled code is kept for them, below .cache, also where the environment
# says that none may be written beside the source.
compiled := env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX=$(CURDIR)/.cache/compiled

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' $(MAKEFILE_LIST) | expand -t 14

demo: runtime ## conversations through two workers, one of them killed half way, and the proof that nothing was lost
	@$(bin)/inturn demo $(ARGS)

test: setup ## all tests; ARGS="-k words" chooses some, ARGS=--everything leaves no variant of a store out
	@$(compiled) $(bin)/pytest --numprocesses 4 --dist worksteal $(ARGS)

faults: setup ## a load of turns while everything fails, and the count of what came of it; ARGS="--help" tells more
	@$(bin)/python -m tests.faults $(ARGS)

dev: runtime ## everything in one terminal: Valkey, SQLite, worker, beat and web; Ctrl-C stops it
	@$(bin)/inturn dev $(ARGS)

up: setup ## the Procfile as it is deployed, on Valkey and PostgreSQL, with Flower and metrics; Ctrl-C stops it
	@$(bin)/python scripts/up.py $(ARGS)

bench: setup ## what a turn costs, beside the peers, which get an environment of their own; ARGS="hot --rounds 1" chooses one
	@ENVIRONMENT=.cache/peers sh scripts/uv sync --quiet --locked --group peers --no-group docs
	@$(bin)/python -m benchmarks $(ARGS)

docs: setup ## the documentation as a site of its own, in build/site
	@NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build $(ARGS)
	@echo "build/site/index.html; to search in it: python3 -m http.server --bind 127.0.0.1 -d build/site"

check: setup ## format, lint, types, import rules, lock file
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/pyright
	$(bin)/lint-imports
	sh scripts/uv lock --check

audit: ## known holes in what the lock file names; asks osv.dev, so it needs the network (ARGS=--service-url=... asks a mirror)
	@sh scripts/audit $(ARGS)

format: setup ## put the code into shape
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

runtime: ## the virtual environment without the tools of tests, as `make demo` and `make dev` want it
	@sh scripts/setup run

setup: ## the virtual environment alone; PYTHON=... chooses the interpreter
	@sh scripts/setup

clean: ## remove the virtual environment and all caches (not the data of `make dev`)
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
