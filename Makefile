PYTHON ?= python3
MINUTES ?= 30
MUTANTS ?= 2000
SEED ?= 0

demo: .venv
	.venv/bin/pip install -e .
	.venv/bin/dense-imb demo

test: .venv
	.venv/bin/pip install -e ".[test]"
	.venv/bin/python -m pytest -n 2 --dist loadgroup -m "not slow"

# what `make test` leaves out; the two together run every test once
test-all: .venv
	.venv/bin/pip install -e ".[test]"
	.venv/bin/python -m pytest -n 2 --dist loadgroup -m slow

# every command under random kills, full disks and the like; an unfinished soak goes on
soak: .venv
	.venv/bin/pip install -e ".[test]"
	.venv/bin/python -m tests.faults --minutes $(MINUTES) --seed $(SEED) --out soak-$(SEED).json

# damaged files of every format; an unfinished campaign goes on
fuzz: .venv
	.venv/bin/pip install -e ".[test]"
	.venv/bin/python -m tests.fuzz --mutants $(MUTANTS) --seed $(SEED) --out fuzz-$(SEED).json

check: .venv
	.venv/bin/pip install -e ".[dev]"
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

# the quick tests on the oldest and on the newest releases; 14 GB in the folder versions
versions:
	$(PYTHON) -m tests.versions versions --processes 2

# the site, in docs/_build/html; needs the network for the extra alone
docs: .venv
	.venv/bin/python docs/build.py --check || .venv/bin/pip install -e ".[docs]"
	.venv/bin/python docs/build.py

# runs the notebooks of docs/notebooks, and stores their outputs in place
notebooks: .venv
	.venv/bin/pip install -e ".[notebooks]"
	.venv/bin/python -m tests.notebooks.execute

# sdist and wheel, checked; the wheel of the package alone is below 3 MB
dist: .venv
	.venv/bin/pip install build twine
	rm -rf dist
	.venv/bin/python -m build
	.venv/bin/python -m twine check --strict dist/*

.venv:
	$(PYTHON) -m venv .venv

.PHONY: demo test test-all soak fuzz versions check docs notebooks dist
