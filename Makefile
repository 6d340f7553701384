# Two commands matter: `make study` and `make test`. Both install what they need into .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP_INSTALL := python -m pip install --quiet --disable-pip-version-check
# DVC's stages call `python`: the environment's comes first
export PATH := $(abspath $(VENV))/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help install study full-study real-study verify test bench docs lint format rooms gallery ui lock licences clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | expand -t 12

install: $(INSTALLED) ## the locked dependencies, in .venv

$(INSTALLED): requirements.lock constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14) and f"rnngrad needs Python 3.11, 3.12 or 3.13, and {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP_INSTALL) --no-deps --require-hashes -r requirements.lock
	$(BIN)/$(PIP_INSTALL) -r constraints.txt
	$(BIN)/$(PIP_INSTALL) --no-deps --editable .
	@mkdir -p -m 700 build .dvc/cache # comments lie in them
	@touch $@

# Where reports/ is not the committed one, its reader should know why.
define SHOW
@cat reports/answer.txt
@git diff --quiet HEAD -- reports 2> /dev/null; [ $$? != 1 ] || echo "reports/ is not that of the last commit: other settings or code, or another kind of processor or build of torch, which trains other weights; make verify says how far it is off"
@echo "report: file://$(abspath reports/report.html)"
endef

# DVC needs a repository: what is downloaded as a zip file is none.
.PHONY: clone
clone:
	@git rev-parse --git-dir > /dev/null 2>&1 || { echo "this folder is no git repository: git clone it, or git init && git add . && git commit -m all"; exit 1; }

study: clone $(INSTALLED) ## run the whole study (dvc repro) and say what it found
	@$(BIN)/dvc repro
	$(SHOW)

full-study: clone $(INSTALLED) ## the study on 40,000 real comments; checks the disk and says first what it takes
	@$(BIN)/python pipeline/preset.py full
	$(SHOW)

real-study: clone $(INSTALLED) ## reports/real: the study on real comments (DATA=train.csv.gz VECTORS=glove.txt.gz)
	@$(BIN)/python pipeline/real_study.py "$(DATA)" "$(VECTORS)"

verify: clone $(INSTALLED) ## rerun the committed study from nothing, and say which outputs are the same
	@$(BIN)/python pipeline/verify.py

test: $(INSTALLED) ## the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: $(INSTALLED) ## time the probe beside JAX, TensorFlow and plain torch; on an idle machine
	@test -x .bench-venv/bin/python || $(PYTHON) -m venv .bench-venv
	-@grep -v '^#' benchmarks/requirements.txt | xargs -n 1 .bench-venv/bin/python -m pip install --quiet --disable-pip-version-check
	@$(BIN)/python -m benchmarks.bench $(BENCH)

docs: .docs-venv ## the pages about the library, in site/
	@NO_MKDOCS_2_WARNING=1 .docs-venv/bin/mkdocs build --strict
	@echo "docs: file://$(abspath site/index.html), or with its search: python3 -m http.server -d site"

.docs-venv: pyproject.toml
	@$(PYTHON) -m venv $@
	@$@/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $@/extra.txt
	@$@/bin/$(PIP_INSTALL) -r $@/extra.txt
	@touch $@

lint: $(INSTALLED) ## ruff, pyright and the rule which room may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/rooms.py --check
	@$(BIN)/pyright

format: $(INSTALLED) ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

rooms: $(INSTALLED) ## draw in CONTRIBUTING.md which room imports which
	@$(BIN)/python .ci/rooms.py

gallery: $(INSTALLED) ## draw examples/gallery, how gradients pass through cells that torch has no module for
	@$(BIN)/python examples/gallery.py

ui: $(INSTALLED) ## MLflow on the results, at a port of this machine (PORT=5000)
	@$(BIN)/python pipeline/publish.py || echo "nothing new is published; MLflow shows what was"
	@$(BIN)/python pipeline/ui.py $(or $(PORT),5000)

# torch's builds for CPU and for CUDA share a version, not their bytes, and only the latter needs these
# packages, whose versions it names exactly: the lock leaves out both, and constraints.txt brings torch
TORCH_PACKAGES := $(foreach p,torch cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cccl \
  nvidia-cuda-cupti nvidia-cuda-crt nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft \
  nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
  nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton,--no-emit-package $(p))

lock: ## renew requirements.lock from pyproject.toml (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --upgrade --extra study --extra keras --extra dev \
	  --constraint constraints.txt $(TORCH_PACKAGES) --generate-hashes --no-annotate --no-header \
	  --output-file requirements.lock pyproject.toml

licences: $(INSTALLED) ## renew THIRD_PARTY.md, the licence of every locked package
	@{ printf '# Licences of the locked dependencies\n\nMade by `make licences`; none of them is part of this repository. UNKNOWN: the package states its licence only in a file (huey: MIT, skops: MIT).\n\n'; \
	  $(BIN)/pip-licenses --from=mixed --format=markdown --order=license \
	  --ignore-packages rnngrad pip setuptools | tr -s ' -'; } > THIRD_PARTY.md

clean: ## remove what runs made; the committed reports and the environment stay
	rm -rf build .unfinished-* mlflow.db mlruns mlartifacts reports/curves.csv reports/explore.html
