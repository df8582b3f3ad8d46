.PHONY: demo test lint types unit test-slow defaults results clean

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

demo: $(VENV)/.installed  ## set up and run the main job on the embedded photographs
	$(BIN)/gibench run --attack spearpp --attack mean-image --defense none --defense dp:noise_multiplier=1e-4 --defense dp --model mlp:width=200,depth=5 --batch-size 20

test: lint types unit  ## set up and pass lint, types and tests

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The type checker sees the tree as it is installed, with the three top-level folders inside the package.
types: $(VENV)/.installed
	rm -rf build/types && mkdir -p build/types
	cp -r gibench build/types/ && cp -r attacks defenses leaderboard build/types/gibench/
	$(BIN)/mypy build/types/gibench

unit: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal

test-slow: $(VENV)/.installed  ## the tests that run real attacks at size
	$(BIN)/python -m pytest -m slow --numprocesses auto --dist worksteal

defaults: $(VENV)/.installed  ## note the plugins' default settings anew, in gibench/defaults.json
	$(BIN)/python -m gibench.defaults

results: $(VENV)/.installed  ## render the published tables and figures from the rows in leaderboard/results
	$(BIN)/python -m gibench.leaderboard.publish

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache *.egg-info
