# Each command sets up .venv first, which takes minutes the first time and nothing after that.
#
#   make run IMGS=folder BODY=auto|imagenet|bundled|FILE OUT=folder other pictures, other weights, other place
#   make lab PORT=8081                                             another port
#   make ... PYTHON=python3.12                                     another Python (3.11 to 3.13)

PYTHON ?= python3
PY = .venv/bin/python

.PHONY: help lab run test bench store clean setup

help:
	@echo "make lab    open the tutorial in JupyterLab, http://localhost:8080/lab"
	@echo "make run    run all of it without a browser, into out/demo.html and out/demo.ipynb"
	@echo "make test   run the tests"
	@echo "make bench  measure against peers, into bench/results.md"
	@echo "make clean  remove out/ and caches (delete .venv yourself to set up from nothing)"

lab: setup
	@$(PY) tools/lab.py

run: setup
	@$(PY) tools/run_notebook.py demo.ipynb

# The stored outputs come from the bundled body on a CPU, and so do those they are compared with.
test: setup
	@BODY=bundled CUDA_VISIBLE_DEVICES= $(PY) -m pytest -rs --durations=12 -o tmp_path_retention_policy=failed tests

bench: setup
	@$(PY) -m bench

# For whoever changes the notebook: run it, store the outputs in demo.ipynb itself, and bring the
# Chinese edition up to date.
store: setup
	@BODY=bundled IMGS= CUDA_VISIBLE_DEVICES= $(PY) tools/run_notebook.py demo.ipynb --store
	@$(PY) tools/dev/editions.py

clean:
	rm -rf out models .pytest_cache .ruff_cache
	find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

setup:
	@command -v "$(PYTHON)" >/dev/null || { echo "No $(PYTHON) on this machine: install Python 3.11, 3.12 or 3.13."; exit 1; }
	@"$(PYTHON)" tools/setup_env.py $(if $(filter file,$(origin PYTHON)),,--this-python)
