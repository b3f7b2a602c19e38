# Everything a newcomer needs; the environment lives in .venv and needs only Python 3.11+, make and the registries.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-all fuzz lint bench docs clean

demo: $(STAMP)
	$(BIN)/atoll demo

# What starts processes and networks of its own has the machine to itself; the rest shares its cores, a file each.
MACHINE := tests/browser tests/faults tests/networks
SHARED := tests/golden tests/mutations tests/properties tests/unit tests/worlds
PYTEST := $(BIN)/python -m pytest

test: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist loadfile $(SHARED); shared=$$?; \
	$(PYTEST) $(MACHINE) && exit $$shared

test-all: PYTEST += -m 'slow or not slow'
test-all: test

fuzz: $(STAMP)
	$(BIN)/python -m pytest tests/fuzz

lint: $(STAMP)
	$(BIN)/ruff check src tests bench docs examples
	$(BIN)/ruff format --check src tests bench docs examples
	$(BIN)/pyright

bench: $(STAMP)
	failed=; for b in bench/*.py; do echo "== $$b"; $(BIN)/python $$b || failed="$$failed $$b"; done; \
	test -z "$$failed" || { echo "these failed:$$failed"; exit 1; }

# Strict: a warning, such as a link that leads nowhere, is an error. The site is build/docs/index.html.
docs: $(STAMP)
	$(BIN)/python docs/tables.py --check
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/docs

# torch first and pinned: its plain wheel is small on PyPI's CPU builds, and what follows is then satisfied by it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
