# make demo      install without torch, run the demonstration, print where the reports lie
# make hub-demo  a hub and four hospitals on this machine, their page open on a port, until Ctrl-C
# make test      install everything the tests need, run them
# make check     lint, format, types, documentation, the import table
# make bench     slow tests and benchmarks
# make docs      write the pages of docs/reference anew
# make clean     remove .venv and whatever was built

PYTHON ?= python3
BIN := .venv/bin
INSTALL := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo hub-demo test check bench docs clean

help:
	@sed -n '/^# /s/^# //p' Makefile

# .venv/.demo, .venv/.hub and .venv/.test say what is installed. Whoever changes what is needed makes them older than that.
.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "comity needs Python 3.11 or newer. Got $$($(PYTHON) --version). Use make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { echo "No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

.venv/.demo: pyproject.toml constraints.txt | .venv/.python
	@echo "Installing into .venv: numpy, scikit-learn, polars. About a minute, once."
	@$(INSTALL) --editable '.[compare]'
	@touch $@

.venv/.hub: pyproject.toml constraints.txt | .venv/.python
	@echo "Installing into .venv: numpy, scikit-learn, polars, starlette, uvicorn, httpx. About a minute, once."
	@$(INSTALL) --editable '.[compare,service]'
	@touch .venv/.demo $@

.venv/.test: pyproject.toml constraints.txt | .venv/.python
	@echo "Installing into .venv what the tests need, torch included. A few minutes, once."
	@$(INSTALL) --editable '.[all,test,check]'
	@touch .venv/.demo .venv/.hub $@

demo: .venv/.demo
	@$(BIN)/comity demo

hub-demo: .venv/.hub
	@$(BIN)/python -m comity.service.demo

test: .venv/.test
	@$(BIN)/python tests/thirds.py -m 'not slow'

check: .venv/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python docs/reference/make.py --check
	@$(BIN)/python -m pytest tests/docs

# pytest ends with 5 when no test is marked slow.
bench: .venv/.test
	@$(BIN)/python -m pytest -m slow -o faulthandler_timeout=3600 || [ $$? -eq 5 ]
	@for file in $(wildcard benchmarks/*.py); do $(BIN)/python $$file || exit 1; done

docs: .venv/.test
	@$(BIN)/python docs/reference/make.py

clean:
	rm -rf .venv build dist comity-demo .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
