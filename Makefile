# Every target does all its own set-up; running one twice is fine and fast.
BIN := .venv/bin

.PHONY: help demo test search chaos bench bench-compare lint fleet fleet-down lock venv machine

help:
	@echo "make demo        the main job on a practice fleet of three real workers"
	@echo "make test        lint, types, and all tests, on a practice fleet of their own"
	@echo "make search      the tests of rules, on other examples each time"
	@echo "make chaos       every fault on a practice fleet, and a table of what came of it"
	@echo "make bench       cloudai next to ssh and docker by hand, side by side"
	@echo "make bench-compare   two runs of it, and what became better or worse"
	@echo "make lint        formatting, lint and types alone"
	@echo "make fleet       the practice fleet, to try things by hand"
	@echo "make fleet-down  take it down; nothing of it is left"
	@echo "make lock        bring the locked dependencies up to date"

venv:
	@MAKE_GOAL=$(firstword $(MAKECMDGOALS)) bash .ci/setup.sh python

machine:
	@MAKE_GOAL=$(firstword $(MAKECMDGOALS)) bash .ci/setup.sh machine

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: machine lint
	$(BIN)/pytest

# Tests of rules, each time on other examples.
search: machine venv
	CLOUDAI_EXAMPLES=search $(BIN)/pytest -q -m hypothesis

# CHAOS: its options, as in `make chaos CHAOS="--seed 7 --only dockerd"`, or `--full`.
chaos: machine venv
	@$(BIN)/python -m tests.chaos $(CHAOS)

# BENCH: its options, as in `make bench BENCH="--short"` or `make bench BENCH="--only logs"`.
bench: machine venv
	@$(BIN)/python -m tests.bench $(BENCH)

# COMMITS: two whose benches ran here, as in `make bench-compare COMMITS="1a2b3c4 5d6e7f8"`;
# else the two latest runs.
bench-compare: venv
	@$(BIN)/python -m tests.bench.results $(COMMITS)

demo: machine venv
	@$(BIN)/python -m tests.fleet_lab.demo

fleet: machine venv
	@$(BIN)/python -m tests.fleet_lab up

fleet-down: venv
	@$(BIN)/python -m tests.fleet_lab down

lock:
	@bash .ci/setup.sh lock
