# Two commands do everything on a fresh machine: `make pretrain` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: env pretrain test test-slow sanitize lint docs clean test-gpu gpu-session

env: $(READY)

$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "evergraft needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

pretrain: env  ## Pre-train a small sparse BERT on the docstrings of this machine: some minutes on two cores.
	$(BIN)/evergraft pretrain --recipe recipes/first.yaml --report

test: env  ## The fast tests: under ten minutes on two cores.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: env  ## The long ones too.
	$(BIN)/python -m pytest -m slow

sanitize: env  ## The native kernels under the address and undefined-behaviour sanitizers, each instruction set.
	$(BIN)/cmake -S . -B build/sanitize -DEVERGRAFT_SANITIZE=ON
	$(BIN)/cmake --build build/sanitize --parallel 2
	cd build/sanitize && ../../$(BIN)/ctest --output-on-failure

test-gpu: env  ## The GPU products, natively where there is a GPU, and what only a GPU can show.
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/sparse/products/test_gpu*.py

# GPU_PYTHON names a Python that has torch, Triton and the project's dependencies, where none can be installed.
gpu-session: $(if $(GPU_PYTHON),,env)  ## Test, tune and bench on a GPU: under nine minutes; results in benchmarks/results/gpu.
	$(or $(GPU_PYTHON),$(BIN)/python) benchmarks/gpu_session.py

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror native/*.cpp native/*.hpp
	$(BIN)/mypy

docs: env
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
