# Two commands: `make train` trains a net, `make test` runs the tests. Each makes what it needs.

PYTHON ?= python3
VENV ?= .venv

.PHONY: train test lint

train: $(VENV)/.runtime
	$(VENV)/bin/python train.py --config=configs/resnet_small.py

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest --durations=40

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/.runtime: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r requirements-dev.txt
	touch $@
