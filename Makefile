# Each target in one line of help: `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3
STAMP := $(VENV)/.installed
PLOTTING := $(VENV)/.installed-plotting
export PYTHONPATH := .

.PHONY: help demo up down test lint format unit cluster bench bench-quick tools lock kind-up kind-down node-tools node-up node-down node-image test-node clean prerequisites

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

demo: $(STAMP) ## the main job on a real control plane and a real step-ca, in under two minutes
	@$(BIN)/python -m tests.testbed.session demo

up: $(STAMP) ## the same, left running for exploring
	@$(BIN)/python -m tests.testbed.session up

down: $(STAMP) ## end what `make up` left running
	@$(BIN)/python -m tests.testbed.session down

test: lint unit cluster ## lint, unit tests, and tests on a real cluster

lint: $(STAMP) tools ## ruff, mypy strict, import rules, helm lint
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$$($(PYTHON) tests/testbed/tools.py path helm) lint --strict --quiet charts/certrenewal

format: $(STAMP) ## what ruff can mend by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

unit: $(STAMP) ## tests of the pure core and of the docs, in seconds
	@$(BIN)/pytest tests/unit tests/docs -q

cluster: $(STAMP) tools ## tests on a real API server and a real step-ca
	@$(BIN)/pytest tests --ignore=tests/unit --ignore=tests/docs --ignore=tests/node -n $(WORKERS) --dist loadfile $(AGAIN)

bench: $(PLOTTING) tools ## every figure of docs/benchmarks.md, measured anew (about two hours)
	@$(BIN)/python -m tests.bench

bench-quick: $(PLOTTING) tools ## a few small figures, within three minutes
	@$(BIN)/python -m tests.bench --quick

tools: prerequisites ## build the testbed's programs into the cache (about ten minutes, once)
	@$(PYTHON) tests/testbed/tools.py

test-node: $(STAMP) ## tests on a real node with real pods, where this machine can run one (root, Linux)
	@$(BIN)/python -m tests.node.session prepare
	@$(BIN)/pytest tests/node

node-up: $(STAMP) ## a real node with step-ca and certrenewal in pods, left running (root, Linux)
	@$(BIN)/python -m tests.node.session up

node-down: $(STAMP) ## end what `make node-up` left running
	@$(BIN)/python -m tests.node.session down

node-image: $(STAMP) ## size and start time of the image, measured on a node
	@$(BIN)/python -m tests.node.session image

node-tools: tools ## build a node's programs into the cache (about ten minutes, once)
	@$(PYTHON) -m tests.node.programs

lock: ## resolve the dependencies anew
	@$(BIN)/uv lock -q && $(BIN)/uv export -q --frozen --no-dev --no-emit-project --format requirements-txt -o requirements.lock

kind-up: ## the demo's story on kind, for those who have Docker
	@hack/kind-up.sh

kind-down: ## remove the kind cluster
	@hack/kind-down.sh

clean: ## remove the virtual environment and caches of the checkout
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

prerequisites:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: https://www.python.org/downloads"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, found $$($(PYTHON) -V)"; exit 1; }

$(STAMP): uv.lock pyproject.toml | prerequisites
	@echo "installing the locked dependencies into $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check uv==0.13.9
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync -q --frozen --group dev --inexact
	@touch $@

$(PLOTTING): $(STAMP)
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync -q --frozen --group dev --group bench --inexact
	@touch $@
