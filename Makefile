# make setup   build .venv (at once when nothing has changed)
# make run     open Chalkline here; for a whole class: make run HOST=0.0.0.0
# make test    lint and the quick tests; make test-all adds the slow ones

HOST ?= 127.0.0.1
PORT ?= 8501
PYTHON_ENV := .venv/bin/python

# Where `make lock` finds PyTorch's CPU wheels: a page or a folder of them.
TORCH_WHEELS ?= https://download.pytorch.org/whl/cpu/torch/

# Tests run on all cores; `make test SPREAD=` runs them one after the other.
SPREAD ?= -n logical --dist loadgroup

# Bytecode is kept, as by default: without it every start compiles all sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run warm test test-all lint bench load lock clean

setup:
	@PYTHON="$(PYTHON)" tools/setup.sh

warm: setup
	@$(PYTHON_ENV) -m sims warm

run: warm
	@$(PYTHON_ENV) -m app.server --host "$(HOST)" --port "$(PORT)"

lint: setup
	$(PYTHON_ENV) -m ruff check .
	$(PYTHON_ENV) -m ruff format --check --quiet .
	$(PYTHON_ENV) -m mypy

test: lint
	$(PYTHON_ENV) -m pytest $(SPREAD) -m "not slow"

test-all: lint
	$(PYTHON_ENV) -m pytest $(SPREAD)

# JAX is a rival of the benchmarks alone; where it cannot be had, its rows say so.
bench: setup
	-@$(PYTHON_ENV) -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	$(PYTHON_ENV) -m benchmarks

# A class of a hundred against a real server, in under 20 minutes on an idle machine; before a release:
# make load LOAD="--minutes 60"
load: setup
	$(PYTHON_ENV) -m tests.load $(LOAD)

# The image's packages with their hashes: Linux on x86-64, the Python of the Dockerfile, PyTorch for the CPU.
lock: setup
	echo "torch==2.13.0+cpu" | .venv/bin/uv pip compile requirements.txt --constraint - \
		--find-links "$(TORCH_WHEELS)" --index-strategy unsafe-best-match \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --upgrade \
		--custom-compile-command "make lock" --quiet --output-file requirements-image.lock

# What the tools left behind; the environment and the stored runs stay.
clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
