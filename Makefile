# make demo    set up, then run the main job on a phantom CT
# make serve   set up, then serve the page with a phantom CT, and open it: http://127.0.0.1:8000 (or PORT=)
# make test    set up, then run the tests
# make check   what CI runs: lint, types, import rules, docs, tests, those with the lowest versions, and the built wheel
# make docs    builds the pages and the API reference as a site, into build/site
# make lowest  runs tests that touch dependencies with the lowest version of every one that is allowed
# make sbom    writes build/sbom.cdx.json: what the base install with the extra cpu brings, and each one's licence
# make fuzz    damages files of every format for MINUTES=30 and writes what came of it into docs/reliability.md
# make pages   makes again what the pages show: pictures, screenshots (they need Orthanc and Chromium), reliability

.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
# Test processes side by side; each with one thread, or they would take each other's cores.
JOBS ?= auto
# Of `make serve`.
PORT ?= 8000
# Of `make fuzz`: how long, and of all its random choices.
MINUTES ?= 30
SEED ?= 1
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# Written when an environment is complete; older than pyproject.toml means: install again.
RUNTIME := $(VENV)/.installed-runtime
SERVE := $(VENV)/.installed-serve
DEV := $(VENV)/.installed-dev

.PHONY: help demo serve test check lint types imports smoke lowest sbom docs fuzz pages toolchain clean

help:
	@sed -n 's/^# make /make /p' Makefile

demo: $(RUNTIME)
	$(BIN)/nodule-diag demo --out demo

serve: $(SERVE)
	$(BIN)/nodule-diag serve --demo --open --port $(PORT)

test: $(DEV)
	$(PYTEST) -m "not slow"

check: lint types imports docs test lowest smoke

lint: $(DEV)
	$(BIN)/ruff check .

types: $(DEV)
	$(BIN)/mypy

imports: $(DEV)
	$(BIN)/lint-imports

# The slow tests, among them the wheel installed into a fresh environment outside the checkout.
smoke: $(DEV)
	$(PYTEST) -m slow

# --strict (in mkdocs.yml): a link that leads nowhere, or a page without a place, fails.
docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# Ends with an error where a fault was found; the page is made all the same. Files of findings: build/fuzz.
fuzz: $(DEV)
	cd tests && PYTHONPATH=.:.. $(abspath $(BIN))/python -m fuzz --minutes $(MINUTES) --seed $(SEED) \
	  --out ../results/reliability/fuzz.json; code=$$?; $(abspath $(BIN))/python ../docs/make/reliability.py; exit $$code

pages: $(DEV)
	$(BIN)/python docs/make/house.py
	$(BIN)/python docs/make/picture.py
	$(BIN)/python docs/make/report_picture.py
	$(BIN)/python docs/make/screens.py
	$(BIN)/python docs/make/page_picture.py
	$(BIN)/python docs/make/readme_output.py
	$(BIN)/python docs/make/judged.py
	$(BIN)/python docs/make/ablations.py
	$(BIN)/python docs/make/reliability.py

# TESTS="tests/sdk tests/cli": all of them. Wheels only, but for hnswlib, which has none: or pip tries old source.
LOWEST := build/lowest
TESTS ?= $$($(BIN)/python tests/packaging/lowest.py --tests)
lowest: $(DEV)
	$(PYTHON) -m venv --clear --without-pip $(LOWEST)
	$(BIN)/python tests/packaging/lowest.py > $(LOWEST)/lowest.txt
	$(BIN)/python -m pip --python $(LOWEST)/bin/python install -c $(LOWEST)/lowest.txt --only-binary :all: --no-binary hnswlib \
	  -e ".[$$($(BIN)/python tests/packaging/lowest.py --extras)]" $$($(BIN)/python tests/packaging/lowest.py --tools)
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(TESTS)

# Dated by the last commit, so that two runs on one commit and one package index give equal bytes.
sbom: $(DEV)
	$(PYTHON) -m venv --clear --without-pip build/runtime
	$(BIN)/python -m pip --python build/runtime/bin/python install '.[cpu]'
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} \
	  $(BIN)/python docs/make/sbom.py build/runtime --out build/sbom.cdx.json

# hnswlib is published as source only: without a compiler, pip fails after minutes and far from the cause.
toolchain:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "nodule-diag needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments. Debian/Ubuntu: apt install python3-venv" >&2; exit 1; }
	@printf '#include <vector>\n#include <Python.h>\n' | $(CXX) -x c++ -fsyntax-only \
	  -I"$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')" - 2>/dev/null || { \
	  echo "hnswlib is compiled during the installation, and '$(CXX)' cannot compile C++ against Python's headers." >&2; \
	  echo "Debian/Ubuntu: apt install g++ python3-dev | Fedora: dnf install gcc-c++ python3-devel | macOS: xcode-select --install" >&2; \
	  exit 1; }

$(RUNTIME): pyproject.toml
	@$(MAKE) --no-print-directory toolchain
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e '.[cpu]'
	@touch $@

$(SERVE): $(RUNTIME)
	$(BIN)/python -m pip install -e '.[cpu,serve,dicom]'
	@touch $@

# torch on its own first, so that its version, and CPU or CUDA, is chosen here and not by a dependency.
$(DEV): $(RUNTIME)
	$(BIN)/python -m pip install '$(TORCH)'
	$(BIN)/python -m pip install -e '.[cpu,openvino,train,export,bench,dev]'
	@touch $@

clean:
	rm -rf $(VENV) dist build demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
