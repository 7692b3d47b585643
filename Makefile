# The two commands: `make demo` and `make test`. Both set everything up from a bare clone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DATA   ?= $(MENGZI_MT_DATA)
# Processes that the tests run in.
JOBS   ?= 2

# Before torch is imported: OpenMP threads that spin while they wait slow shared cores down many times.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_DISABLE_TELEMETRY ?= 1
# uv finds local wheels where pip is told to look for them.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: demo test test-fast lint format bench-train bench-eval bench-generate install clean

demo: install  ## train a micro T5 on the bundled samples, evaluate it zero-shot beside the shipped model, write runs/demo/report.html
	rm -rf runs/demo
	$(BIN)/python train.py recipes/demo.yaml
	$(BIN)/python evaluate.py runs/demo/final --suite demo --data sample --max-templates 3 --output runs/demo
	$(BIN)/python evaluate.py models/mengzi-mt-mini --suite demo --data sample --max-templates 3 --output runs/demo/mengzi-mt-mini
	$(BIN)/mengzi-mt compare runs/demo runs/demo/mengzi-mt-mini

test: install  ## every test; those that need real data skip unless MENGZI_MT_DATA is set
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-fast: install  ## without the slow ones
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

bench-eval: install  ## scoring speed beside lm-eval and t-zero's way; needs DATA=folder or MENGZI_MT_DATA
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.eval_speed $(if $(DATA),--data-dir $(DATA)) $(BENCH)

bench-generate: install  ## generation speed beside transformers; real inputs with DATA=folder or MENGZI_MT_DATA
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.generation_speed $(if $(DATA),--data-dir $(DATA)) $(BENCH)

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-train: install  ## training against Hugging Face's trainer, speed, memory and loss: make bench-train DATA=/path/to/data
	@test -n "$(DATA)" || { echo "Where are the datasets' files? make bench-train DATA=/path/to/data"; exit 2; }
	$(BIN)/python -m benchmarks.train_speed --data-dir "$(DATA)"
	$(BIN)/python -m benchmarks.train_loss --data-dir "$(DATA)"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -m pip install --quiet uv; then \
	  echo "installing with uv"; $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
	  echo "installing with pip"; $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'; \
	fi
	@# The reference of the parity tests; its release declares an old Python, and the tests skip without it.
	@$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python promptsource==0.2.3 "setuptools<82,>=77" || \
	  echo "promptsource could not be installed; its parity tests will skip"
	@touch $@

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .ruff_cache .mypy_cache
