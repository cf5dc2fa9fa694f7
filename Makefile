# make run          everything on this machine: database, ingest, training, evaluation, publication
# make test         lint, types, import rule, and every test that needs only pip packages
# make test-system  the tests that need the Debian packages of .ci/apt-packages
# make secrets      random passwords for the compose stack, where there are none yet
# make drill        fires every alert for real on a throw-away instance; needs root and Debian's prometheus,
#                   prometheus-alertmanager and libfaketime
# make test-stack   builds the images and runs the whole stack on the Docker engine that DOCKER_HOST names

PYTHON ?= python3
BIN := .venv/bin
# The oldest supported PostgreSQL: Debian's package puts it here.
DEBIAN_POSTGRES := /usr/lib/postgresql/15/bin
SOURCES ?=
STAMP := .venv/installed

.PHONY: run setup test test-system lint lock clean secrets test-stack drill

run: setup
	$(BIN)/codelupe up $(if $(ONCE),--once) $(SOURCES)

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "codelupe needs Python 3.11 or newer: make PYTHON=python3.12")'
	@echo "Installing into .venv (about 1.8 GB with torch; a minute or two)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar on --constraint constraints.txt --editable '.[train,dev,bench]'
	@touch $@

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2

test-system: setup
	$(BIN)/pytest -m system
	TEST_POSTGRES_BIN=$(DEBIAN_POSTGRES) $(BIN)/pytest -n 2 tests/schema -m 'not system' --deselect tests/schema/test_embedded.py

# Pin what is installed now, after a deliberate upgrade.
lock: setup
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

# No .venv needed: a server that only runs the stack has none.
secrets:
	@$(PYTHON) deploy/compose/make_secrets.py

# BUILD_FLAGS go to `docker build`: --network host, or --build-arg PIP_EXTRA_INDEX_URL=… for a smaller torch.
test-stack: setup
	BUILD_FLAGS="$(BUILD_FLAGS)" $(BIN)/pytest -m stack tests/stack

drill: setup
	$(BIN)/pytest -m drill tests/drill

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
