# make demo        the whole of knowme on a fictional person, in a throw-away home
# make learn-demo  an adapter from that person's life, trained, measured and put before the gate
# make test        everything is set up, every test is run (CHROMA=0, TRAIN=0 leave large ones out)
# make lint types docs docs-check bench smoke clean
# PYTHON=/path/to/python3.12 chooses the interpreter; ARGS="-k name" goes to pytest.

# The first Python that is new enough and can make an environment (Debian splits ensurepip off).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
  $$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
  && command -v $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
CHROMA ?= 1
TRAIN ?= 1
comma := ,
EXTRAS := dev,local,sqlite-vec$(if $(filter-out 0,$(CHROMA)),$(comma)chroma)$(if $(filter-out 0,$(TRAIN)),$(comma)train)
TEST_STAMP := $(VENV)/.stamp-test-$(if $(filter-out 0,$(CHROMA)),chroma,plain)-$(if $(filter-out 0,$(TRAIN)),train,plain)
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo learn-demo test lint types docs docs-check bench smoke models clean

help:
	@sed -n 's/^# //p' Makefile | head -5

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
	  echo "make: no Python 3.11 or newer with ensurepip was found."; \
	  echo "  mend: install one (Debian: apt install python3-venv), or: make PYTHON=/path/to/python3.12"; \
	  exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON). This takes a minute or two, once."
	@"$(PYTHON)" -m venv $(VENV)

$(VENV)/.stamp-demo: pyproject.toml | $(BIN)/python
	@$(PIP) install -e '.[local]'
	@touch $@

$(TEST_STAMP): pyproject.toml | $(BIN)/python
	@$(PIP) install -e '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.stamp-demo $(if $(filter-out 0,$(TRAIN)),$(VENV)/.stamp-learn)

$(VENV)/.stamp-learn: pyproject.toml | $(BIN)/python
	@echo "Setting up what training needs: torch and what belongs to it. Some minutes, once."
	@$(PIP) install -e '.[local,train]'
	@touch $@ $(VENV)/.stamp-demo

learn-demo: $(VENV)/.stamp-learn
	@$(BIN)/knowme models pull
	@$(BIN)/python -m knowme.demo_learn .demo-learn

demo: $(VENV)/.stamp-demo
	@$(BIN)/knowme models pull
	@$(BIN)/python -m knowme.demo .demo

test: $(TEST_STAMP)
	@$(BIN)/knowme models pull
	$(BIN)/python -m pytest $(ARGS)

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_STAMP)
	$(BIN)/mypy

docs: $(TEST_STAMP)
	$(BIN)/python -m knowme.docs

docs-check: $(TEST_STAMP)
	$(BIN)/python -m knowme.docs --check

bench: $(TEST_STAMP)
	@$(BIN)/knowme models pull
	$(BIN)/python bench/speed.py

# The wheel as a person gets it: a fresh environment, no development dependencies, no model.
smoke: $(TEST_STAMP)
	bash .ci/smoke $(BIN)/python

clean:
	rm -rf $(VENV) .demo .demo-learn build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
