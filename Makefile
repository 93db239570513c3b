# Every command of the project. `make help` lists them; .ci/run calls these same lines.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
CLIENT_VENVS = fastmcp2 fastmcp4 langchain
CLIENT_NODES = codex conformance inspector mcp-remote node typescript2
LIVE = clients compose e2e envoy/live
# Of tests/envoy what runs compiled code: the codec, on what a real Envoy sends too.
COMPILED_TESTS = $(addprefix tests/,attacks core ledger server telemetry tokens \
  $(addprefix envoy/,test_codec.py test_codec_answers.py test_codec_wire.py live/test_headers_live.py))

# The tests start hundreds of Python processes, and pytest rewrites 300 files: bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup typescript matrix demo unit test test-compose compiled test-compiled bench wheelhouse image chart lint types format protos docs example lock clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo
	@echo "one test:     $(BIN)/pytest -n 0 tests/core/test_decision.py -k tool"
	@echo "by need:      $(BIN)/pytest -m 'redis and not envoy' tests   (envoy, redis, browser, engine, process)"

# PYTHON, where somebody says it, is what the environment has: one of another version is made again.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(BIN)/python -V 2>&1 || true),$(shell $(PYTHON) -V 2>&1 || true))
.PHONY: $(VENV)/.ready
endif
endif

# The environment is made once and again whenever what it is made of changes.
$(VENV)/.ready: requirements.lock pyproject.toml demo/pyproject.toml
	@echo "setting up $(VENV) (a minute or two)"
	@$(PYTHON) -c 'import sys; sys.exit("authz needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PYTHON) tools/install.py $(BIN)/python -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e demo
	@touch $@

setup: $(VENV)/.ready  ## make the environment from the lock file

# The 1.x line of the official MCP SDK does not fit beside 2.x; end-to-end tests run its client here.
.venv-mcp1/.ready: requirements-mcp1.lock
	@echo "setting up .venv-mcp1 (the older MCP client, for tests)"
	@$(PYTHON) -m venv --clear .venv-mcp1
	@.venv-mcp1/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-mcp1.lock
	@touch $@

# import-linter brings `rich`, which makes httpx import its own command line in every process; so it
# has an environment of its own. It reads our sources and imports none of them.
.venv-imports/.ready: requirements-imports.lock | setup
	@echo "setting up .venv-imports (import-linter)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-imports
	@$(BIN)/uv pip sync --quiet --require-hashes --python .venv-imports/bin/python $<
	@touch $@

# The official TypeScript client, for tests; where npm is missing they say that they are skipped.
tests/typescript/node_modules/.ready: tests/typescript/package-lock.json
	@if command -v npm >/dev/null; then \
	  echo "setting up tests/typescript (the TypeScript client, for tests)"; \
	  npm ci --prefix tests/typescript --loglevel error --no-audit --no-fund --ignore-scripts && touch $@; \
	else echo "NO npm HERE: the TypeScript client is not tested"; fi

typescript: tests/typescript/node_modules/.ready  ## make the TypeScript client ready for the tests

# The clients of the matrix, each in an environment of its own.
.venv-clients/%/.ready: tests/clients/python/requirements-%.lock
	@echo "setting up .venv-clients/$*"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-clients/$*
	@$(BIN)/uv pip sync --quiet --require-hashes --python .venv-clients/$*/bin/python $<
	@touch $@

tests/clients/%/node_modules/.ready: tests/clients/%/package-lock.json
	@if command -v npm >/dev/null; then \
	  echo "setting up tests/clients/$*"; \
	  npm ci --prefix tests/clients/$* --loglevel error --no-audit --no-fund --ignore-scripts && touch $@; \
	else echo "NO npm HERE: $* is not tested"; fi

build/clients/.go: tests/clients/go/main.go tests/clients/go/go.mod tests/clients/go/go.sum
	@mkdir -p build/clients
	@if command -v go >/dev/null; then \
	  echo "building the Go client, and the server of the conformance suite"; \
	  go build -C tests/clients/go -o $(CURDIR)/build/clients/go . && \
	  go build -C tests/clients/go -o $(CURDIR)/build/clients/everything-server \
	    github.com/modelcontextprotocol/go-sdk/conformance/everything-server && touch $@; \
	else echo "NO go HERE: the Go client and the conformance suite are not tested"; fi

build/clients/.rust: tests/clients/rust/src/main.rs tests/clients/rust/Cargo.toml tests/clients/rust/Cargo.lock
	@mkdir -p build/clients
	@if command -v cargo >/dev/null; then \
	  echo "building the Rust client (a minute or two)"; \
	  cargo build --quiet --locked --manifest-path tests/clients/rust/Cargo.toml \
	    --target-dir build/clients/rust && touch $@; \
	else echo "NO cargo HERE: the Rust client is not tested"; fi

CLIENTS = $(CLIENT_VENVS:%=.venv-clients/%/.ready) $(CLIENT_NODES:%=tests/clients/%/node_modules/.ready)

matrix: setup .venv-mcp1/.ready typescript $(CLIENTS) build/clients/.go build/clients/.rust  ## run real clients and the conformance suite (AUTHZ_RECORD=1 writes docs/clients.json)
	@$(BIN)/pytest -n 0 tests/clients $(ARGS)

demo: setup  ## run the whole thing and walk through it (ARGS=--once ends it, PORT=9443 for another port)
	@$(BIN)/authz demo $(if $(PORT),--port $(PORT)) $(ARGS)

unit: setup  ## run the quick tests that start no program (under a minute)
	@$(BIN)/pytest -n auto --unit $(LIVE:%=--ignore=tests/%) $(ARGS)

test: setup .venv-mcp1/.ready typescript  ## run every test
	@$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --ignore=tests/compose --ignore=tests/clients $(ARGS)

test-compose: setup  ## prove the compose deployment on a real Docker engine (AUTHZ_ENGINE=required)
	@$(BIN)/pytest -n 0 tests/compose $(ARGS)

wheelhouse: setup  ## gather what the images are built of, into dist/
	@$(BIN)/python tools/wheelhouse.py

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' authz/__init__.py)

image: wheelhouse  ## build localhost/authz and localhost/authz-samples
	@docker build --target authz -t localhost/authz:$(VERSION) .
	@docker build --target samples --build-arg LIST=samples -t localhost/authz-samples:$(VERSION) .

# Exit 3 is a machine that cannot compile: there the sources run as they are, and so do the benches.
compiled: setup  ## translate the path of a decision to C, into build/compiled/
	@$(BIN)/python tools/compiled.py

chart: setup  ## render the chart's golden files and plain manifests (needs helm, or AUTHZ_HELM)
	@$(BIN)/python tools/chart.py

# Packages of which a part is compiled, and what goes through all of them.
test-compiled: setup  ## run their tests on the compiled files (AUTHZ_COMPILED=required)
	@$(BIN)/python tools/compiled.py; case $$? in \
	  0) cd build/compiled && AUTHZ_COMPILED=required $(CURDIR)/$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(COMPILED_TESTS) $(ARGS);; \
	  3) echo "THE COMPILED DECISION IS NOT TESTED HERE" && [ "$(AUTHZ_COMPILED)" != required ];; \
	  *) exit 1;; esac

bench: setup  ## measure, as ratios to baselines (ARGS="--full --json FILE NAME...")
	@$(BIN)/python tools/compiled.py || [ $$? = 3 ]
	@$(BIN)/python -m bench $(ARGS)

lint: setup .venv-imports/.ready  ## format check, lint, import contracts, dead code, stubs and example current
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@.venv-imports/bin/lint-imports
	@$(BIN)/vulture
	@$(BIN)/python tools/protos.py --check
	@$(BIN)/python tools/docs.py --check
	@$(BIN)/python tools/example.py --check

types: setup  ## mypy, strict, tests too
	@$(BIN)/mypy

format: setup  ## format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

protos: setup  ## make the stubs from protos/
	@$(BIN)/python tools/protos.py

docs: setup  ## make the pages of docs/ that are tables of the code
	@$(BIN)/python tools/docs.py

example: setup  ## render envoy/ again from envoy/authz.yaml
	@$(BIN)/python tools/example.py

lock: setup  ## resolve requirements.lock again, with hashes and without index addresses
	@$(BIN)/uv pip compile pyproject.toml demo/pyproject.toml --all-extras \
	  --no-emit-package authz --no-emit-package authz-demo --group test --group lint --group type \
	  --group build --universal --generate-hashes --no-emit-index-url --no-strip-extras --upgrade \
	  --custom-compile-command "make lock" --quiet -o requirements.lock
	@echo "mcp<2" | $(BIN)/uv pip compile - --universal --generate-hashes --no-emit-index-url --no-strip-extras --upgrade \
	  --custom-compile-command "make lock" --quiet -o requirements-mcp1.lock
	@echo "import-linter>=2.3" | $(BIN)/uv pip compile - --universal --generate-hashes --no-emit-index-url --no-strip-extras --upgrade \
	  --custom-compile-command "make lock" --quiet -o requirements-imports.lock
	@for name in $(CLIENT_VENVS); do $(BIN)/uv pip compile tests/clients/python/$$name.in --universal \
	  --generate-hashes --no-emit-index-url --no-strip-extras --upgrade \
	  --custom-compile-command "make lock" --quiet -o tests/clients/python/requirements-$$name.lock; done
	@if command -v npm >/dev/null; then for name in typescript $(CLIENT_NODES:%=clients/%); do \
	  npm install --prefix tests/$$name --package-lock-only \
	    --omit-lockfile-registry-resolved --ignore-scripts --silent --no-audit --no-fund; done; fi

clean:  ## remove the environment and the caches
	@rm -rf $(VENV) .venv-imports .venv-mcp1 .venv-clients tests/typescript/node_modules tests/clients/*/node_modules build/clients .mypy_cache .ruff_cache .pytest_cache .hypothesis
