# make demo   reconstruct resources/portrait.png and say where to look
# make test   run the tests
# make lint   check format, style and types
#
# Each makes .venv first, if needed. PYTHON=python3.11 chooses the interpreter; PIP_ARGS="..." is handed to pip install, e.g.
# PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" for the small CPU build of torch.

PIP_ARGS ?=
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif
PACKAGING := pyproject.toml requirements.lock tools/set_up.py

.PHONY: help demo test lint

help:
	@echo "make demo   reconstruct resources/portrait.png and say where to look"
	@echo "make test   run the tests"
	@echo "make lint   check format, style and types"

.venv/installed: $(PACKAGING)
	@$(PYTHON) tools/set_up.py $(PIP_ARGS)
	@echo done > $@

.venv/installed-dev: $(PACKAGING)
	@$(PYTHON) tools/set_up.py --dev $(PIP_ARGS)
	@echo done > .venv/installed
	@echo done > $@

demo: .venv/installed
	@$(BIN)/python optimizer.py --input resources/portrait.png --output output
	@echo "The reconstruction is in output/portrait.png/: open report.html first, then mesh0.glb in any 3D viewer."

test: .venv/installed-dev
	@$(BIN)/python -m pytest

lint: .venv/installed-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy nextface
