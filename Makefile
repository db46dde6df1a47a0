# Each command sets up .venv first, which takes minutes the first time and nothing after that; test, bench and
# store add requirements-dev.txt to it.
#
#   make run IMGS=folder BODY=auto|imagenet|bundled|FILE OUT=folder other pictures, other weights, other place
#   make lab PORT=8081                                             another port
#   make ... PYTHON=python3.12                                     another Python (3.11 to 3.13)

PYTHON ?= python3
PY = .venv/bin/python

.PHONY: help lab run test test-all bench store clean setup setup-dev

help:
	@echo "make lab       open the tutorial in JupyterLab, http://localhost:8080/lab"
	@echo "make run       run all of it without a browser, into out/demo.html and out/demo.ipynb"
	@echo "make test      run the notebook and the quick tests, in 8 minutes on 2 cores"
	@echo "make test-all  the same, then the slow tests: browsers, other folders, real set-ups"
	@echo "make bench     measure against peers, into bench/results.md"
	@echo "make clean     remove out/ and caches (delete .venv yourself to set up from nothing)"

lab: setup
	@$(PY) tools/lab.py

run: setup
	@$(PY) tools/run_notebook.py demo.ipynb

# The stored outputs come from the bundled body on a CPU, and so do those they are compared with.
PYTEST = BODY=bundled CUDA_VISIBLE_DEVICES= $(PY) -m pytest tests

test: setup-dev
	@$(PYTEST) -m "not slow"

# `make test test-all`, as CI calls it, runs each test once.
test-all: test
	@$(PYTEST) -m slow

bench: setup-dev
	@$(PY) -m bench

# For whoever changes the notebook: run it, store the outputs in demo.ipynb itself, and bring the
# Chinese edition up to date.
store: setup-dev
	@BODY=bundled IMGS= CUDA_VISIBLE_DEVICES= $(PY) tools/run_notebook.py demo.ipynb --store
	@$(PY) tools/dev/editions.py

clean:
	rm -rf out models .ruff_cache
	find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints -o -name .pytest_cache \) \
		-type d -exec rm -rf {} +

setup setup-dev:
	@command -v "$(PYTHON)" >/dev/null || { echo "No $(PYTHON) on this machine: install Python 3.11, 3.12 or 3.13."; exit 1; }
	@"$(PYTHON)" tools/setup_env.py $(if $(filter file,$(origin PYTHON)),,--this-python) $(if $(filter %-dev,$@),--dev)
