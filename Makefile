# Two targets are all that a newcomer needs: `make up` and `make test`.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# A file's tests stay together, since they share what they start. More processes would get into each other's way.
PARALLEL ?= --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

.PHONY: up down test lint types lock benchmark clean

up: $(VENV)/.local  ## Install what the laptop platform needs and bring it up.
	$(BIN)/mlp up

down:  ## Stop the laptop platform.
	$(BIN)/mlp down

test: lint types  ## Lint, type-check and test.
	$(BIN)/pytest $(PARALLEL)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

benchmark: $(VENV)/.dev  ## Measure `mlp up`, first and second, and the previews; print medians.
	$(BIN)/python -m benchmarks.up
	$(BIN)/python -m benchmarks.preview

lock: $(VENV)/.dev  ## Refresh constraints.txt to the newest versions that work together.
	$(BIN)/pip-compile --quiet --upgrade --all-extras --strip-extras --no-emit-options --no-annotate \
		--no-header --unsafe-package ml-platform --output-file constraints.txt pyproject.toml
	sed -i 's/+cpu$$//' constraints.txt  # the pin must fit every build of torch, not only this machine's

# One stamp an extra: pip runs again only when the dependencies have changed.
$(VENV)/.local $(VENV)/.dev: $(VENV)/.%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	touch $(VENV)/.local $@  # the dev extra holds the local one

clean: ## Remove the virtual environment and the laptop platform's state.
	rm -rf $(VENV) .mlp
