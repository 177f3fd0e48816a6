# The two commands a new maintainer needs: `make rehearse` and `make test`.
# Everything installs into .venv from requirements.lock, hashes checked.
PYTHON ?= python3
BIN := .venv/bin
FAULT ?=
# One more than the two cores we count on: tests also wait.
WORKERS ?= 3
# Or each of the kernels and commands that are started compiles what it imports.
export PYTHONDONTWRITEBYTECODE :=
# Tests write many small files: to memory, where a file system in it has room.
ROOM := $(shell df -Pk /dev/shm 2>/dev/null | awk 'END { print ($$4 > 4000000) }')
SCRATCH := $(if $(filter 1,$(ROOM)),TMPDIR=$$(mktemp -d /dev/shm/runbooks.XXXXXX) && export TMPDIR && chmod 711 "$$TMPDIR" && \
  trap 'rm -rf "$$TMPDIR"' EXIT INT TERM &&)
# A file's tests share what it builds: they stay on one worker, the long files first (tests/conftest.py).
PYTEST := $(SCRATCH) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SERVERS ?= embedded
SEED ?= 1

.PHONY: rehearse test coverage frozen torture mutants bench notebooks recording lint format lock clean

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check --quiet
	touch $@

# A release from development to mainnet on a practice network: FAULT=NAME[@STAGE[/NODE]] shows a red run,
# SERVERS=real one over a real Prometheus and Alertmanager.
rehearse: .venv/installed
	$(BIN)/runbook rehearse --servers $(SERVERS) $(foreach fault,$(FAULT),--fault $(fault))

# The net is in it whole: every fault at every item, every kill point by name (tests/net).
test: lint
	$(PYTEST) --durations=20 -m "not torture"
	$(BIN)/python -m pytest -n 2 --dist loadfile -p nbval --nbval --nbval-current-env -q $$($(BIN)/python scripts/notebooks.py --recorded)

# The same, and what no test reaches: tracing costs a third of the time.
coverage: .venv/installed
	$(PYTEST) --cov --cov-report=term:skip-covered -m "not torture"

# Write what every fault comes to now. A change of tests/net/outcomes.json is a decision: say why.
frozen: .venv/installed
	$(BIN)/python -m tests.net.freeze

# Kills at random times, and what takes too long for every day.
torture: .venv/installed
	$(PYTEST) -m torture

# 100 mutants of the modules that decide, drawn by a seed: the tests must kill 95 of them.
mutants: .venv/installed
	$(BIN)/python scripts/mutants.py --seed $(SEED)

bench: .venv/installed
	$(BIN)/python bench/all.py

# Re-run the committed notebooks over the shipped recordings and note the digests of their code.
notebooks: .venv/installed
	$(BIN)/python scripts/notebooks.py

# Record a fresh run to ship; then `make notebooks`.
recording: .venv/installed
	$(BIN)/python scripts/notebooks.py --digests
	$(BIN)/python scripts/recording.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Needs uv; the lock holds exact versions and hashes for every platform, and no index address.
lock:
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url \
	  --no-header --python-version 3.11 --quiet -o requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
