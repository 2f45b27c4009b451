# Everything a developer, CI and the README call. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Without byte-code on disk every process that imports a large library starts seconds later.
unexport PYTHONDONTWRITEBYTECODE
# uv trusts, as pip and git do, the certificates of the machine and not only its own.
export UV_SYSTEM_CERTS := 1
# A lock may be for a Python that is not here; nothing is built for it, so none is fetched.
export UV_PYTHON_DOWNLOADS := never

ROWS  ?= 50000
MARKS ?= not slow and not docker and not corpus
ARGS  ?=
BIN   := .venv/bin
READY := .venv/.ready

.PHONY: help setup run test lint check golden lock images bench wheel sbom docs clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv with all that is needed, from the lock

# uv installs the lock in seconds; pip brings it in, held to the same hashes.
$(READY): requirements.lock pyproject.toml setup.py
	@python=$$(for p in "$${PYTHON:-}" python3.11 python3.12 python3.13 python3; do \
	    [ -n "$$p" ] && "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	    && { echo "$$p"; break; }; done || true); \
	[ -n "$$python" ] || { echo "Penstock needs Python 3.11, 3.12 or 3.13; set PYTHON to one." >&2; exit 1; }; \
	[ -x $(BIN)/python ] || "$$python" -m venv .venv
	@echo "Setting up .venv, this takes a minute …"
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.lock
	@VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

run: $(READY)  ## Train on sample trips: raw files to a registered model, and a report to look at
	@[ -e sample-data/taxi-$(ROWS) ] || $(BIN)/penstock sample taxi --rows $(ROWS) --output sample-data/taxi-$(ROWS)
	@$(BIN)/penstock run tabular_training -p source='sample-data/taxi-$(ROWS)/*.csv' $(ARGS)

test: $(READY)  ## Run the tests; MARKS='not docker' adds the slow ones and those that need other data
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m '$(MARKS)' $(ARGS)

lint: $(READY)  ## Style, types, Dockerfile, CI definitions, and generated text that has gone stale
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/hadolint containers/Dockerfile
	@$(BIN)/zizmor --offline --no-progress --quiet --persona=pedantic .github
	@check="$(BIN)/check-jsonschema --quiet --regex-variant nonunicode --builtin-schema"; \
	$$check vendor.cloudbuild cloudbuild.yaml; \
	$$check vendor.github-workflows .github/workflows/*.yml; \
	$$check vendor.azure-pipelines --data-transform azure-pipelines azure-pipelines.yml
	@$(BIN)/penstock docs --check

check: lint test  ## All that CI checks

golden: $(READY)  ## Write the golden specs, and what platforms are sent of them, anew; read the difference like code
	@$(BIN)/penstock compile --all --output tests/golden
	@$(BIN)/python -m tests.compile.targets.golden_requests
	@$(BIN)/python -m tests.compile.targets.azureml.goldens

lock: $(READY)  ## Resolve requirements.lock anew from pyproject.toml, and the locks of the images
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	    --extra all --group dev pyproject.toml -o requirements.lock
	@for file in containers/build.in containers/*/*.in; do \
	    folder=$$(dirname "$$file"); own="$$folder/uv.toml"; [ -f "$$own" ] || own=containers/uv.toml; \
	    kind="--constraint requirements.lock --python-version 3.11 --python-platform x86_64-manylinux_2_28"; \
	    if [ -f "$$folder/base" ]; then \
	        python=$$(sed -nE 's/^([^ ]*\/)?python:([0-9]+\.[0-9]+).*/\2/p' "$$folder/base"); \
	        kind="--upgrade --python-version $$python --python-platform x86_64-manylinux_2_40"; fi; \
	    binary="--only-binary :all:"; [ "$$(basename "$$file")" != sources.in ] \
	        || { binary="--no-binary :all: --no-deps"; own=containers/uv.toml; }; \
	    $(BIN)/uv pip compile --quiet --config-file "$$own" --no-emit-package penstock $$kind $$binary \
	        --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	        "$$file" -o "$${file%.in}.lock"; done

images: $(READY)  ## Build the images whose inputs have changed, and run each one's smoke test; needs Docker
	@$(BIN)/penstock images build --smoke $(ARGS)

bench: $(READY)  ## Measure speed and memory beside the plain alternatives; writes docs/benchmarks.md
	@$(BIN)/python -m tests.benchmarks $(ARGS)

wheel: $(READY)  ## Build dist/*.whl; one commit gives the same bytes anywhere
	@rm -f dist/*.whl; tree=$$(mktemp -d); trap 'rm -rf "$$tree"' EXIT; \
	git ls-files -z | tar --create --null --files-from=- | tar --extract --directory="$$tree"; \
	export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	$(BIN)/python -m build --no-isolation --wheel --outdir dist "$$tree" 2>&1 | tail -n 1

sbom: wheel  ## List what the wheel brings and what is in the images (make images) as CycloneDX in dist/
	@$(BIN)/python .ci/sbom.py wheel dist/*.whl
	@$(BIN)/python .ci/sbom.py images

docs: $(READY)  ## Write the generated tables of the READMEs anew
	@$(BIN)/penstock docs

clean:  ## Remove what was made here, runs and sample data too
	@rm -rf .venv .links build dist *.egg-info penstock-out sample-data compiled .*_cache
