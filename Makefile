# Every target works from a fresh clone with nothing but Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
STAMP := $(VENV)/.installed
# Each process holds a compiled JAX of its own, about 2 GB. In the files' order: pytest would begin with
# those of the most tests, and end with one process waiting for the few that take long.
SPREAD := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Without bytecode each process reads thousands of sources anew: seconds at every start of JAX or Ray.
unexport PYTHONDONTWRITEBYTECODE
# Half of the tests' time would go into optimising programs that run for a moment; test-all does it.
UNOPTIMISED := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false
LOCKS := requirements-uv.lock requirements.lock requirements-data.lock requirements-aot.lock

.PHONY: help env demo code scale notebooks test test-all reference lint lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(STAMP)  ## create .venv from the locked, hashed requirements

$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v != (3, 11) and f"Python 3.11 is needed, {sys.executable} is {v[0]}.{v[1]}; call make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --require-hashes -r requirements.lock -r requirements-data.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --target $(VENV)/libtpu --no-deps --require-hashes -r requirements-aot.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: env  ## run the demonstration study, or go on where it stopped
	$(VENV)/bin/mm1 run ablations/studies/demo.yaml

code: env  ## print the fingerprints that ablations/code_equivalences.yaml names
	@$(VENV)/bin/python -m mm1_jax.workload

scale: env  ## compile the paper's sizes for TPU slices and write the table of docs/scale.md
	$(VENV)/bin/python benchmarks/scale_table.py

notebooks: env  ## take outputs out of the committed notebooks
	@$(VENV)/bin/python -m analysis.notebooks

lint: env  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ty check --error-on-warning
	$(VENV)/bin/pytest -o addopts=-q tests/mm1/test_text_encoding.py

test: lint  ## lint, types and the default tests
	XLA_FLAGS="$(UNOPTIMISED)" $(VENV)/bin/pytest $(SPREAD)

test-all: lint $(VENV)/.reference  ## the default tests and the slow ones, with the references
	$(VENV)/bin/pytest -m "" $(SPREAD)

reference: $(VENV)/.reference  ## install PyTorch and transformers, which only comparisons need

# Not locked by hash: PyTorch's build is the machine's choice (CPU or CUDA).
$(VENV)/.reference: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-reference.in
	@touch $@

lock: env  ## resolve the requirements anew
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --group dev pyproject.toml -o requirements.lock
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-deps requirements-data.in -o requirements-data.lock
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-deps requirements-uv.in -o requirements-uv.lock
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-deps requirements-aot.in -o requirements-aot.lock

clean:  ## remove the environment and everything that was run
	rm -rf $(VENV) .mm1
