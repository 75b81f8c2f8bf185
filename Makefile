# What a newcomer and the continuous integration type. `make` alone lists it.
# Needs Python 3.11 or newer (with venv), make and a package index; all it makes lies in .venv/, .cache/ and build/.

PYTHON ?= python3
UV_VERSION := 0.13.8
AIRFLOW_NEWEST := 3.3
AIRFLOW_FLOOR := 3.1
AIRFLOW_3.3 := 3.3.2
AIRFLOW_3.1 := 3.1.8
CODE := $(wildcard airflow_provider_describer benchmarks demo example_dags tests)

# The demo's vendor and key reach demo/run.py through the environment, never as arguments.
VENDOR ?= image_describer
export VENDOR KEY

export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export RUFF_CACHE_DIR := .cache/ruff

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PRECIOUS: .venv/airflow-%/.ready .venv/airflow-%/.wheel
.PHONY: help demo test test-core test-newest test-floor test-live lint bench lock clean

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- the ways to run a command -------------------------------------------------------------------------------------

# $(call quietly,what,command): one line with the seconds; the command's own words only where it fails.
define quietly
@mkdir -p build; start=$$(date +%s); printf '  %-62s' "$(1)"; \
if { $(2); } >build/setup.log 2>&1; then printf '%4d s\n' $$(($$(date +%s) - start)); \
else printf 'failed\n\n'; cat build/setup.log; exit 1; fi
endef

# uv takes the package index that pip is configured for, unless it has been told one itself.
define uv
index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(.venv/tools/bin/python -m pip config get global.index-url 2>/dev/null)}}"; \
if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; .venv/tools/bin/uv
endef

# $(call environment,name,options and packages): a fresh virtual environment.
environment = $(uv) venv -q --clear --python $(or $(python_$(1)),.venv/tools/bin/python) .venv/$(1) && $(uv) pip install -q --python .venv/$(1) $(2)

# $(call pytest,environment,arguments): PYTEST_ARGS="-k words" picks tests; picking none of an environment's is no failure then.
# PYTHONSAFEPATH keeps the checkout off the path of every `python -m` that a test starts: the wheel is what is tested.
define pytest
@rm -rf build/pytest/$(1); mkdir -p build/pytest; \
PYTHONSAFEPATH=1 .venv/$(1)/bin/pytest --basetemp=build/pytest/$(1) $(2) $(PYTEST_ARGS) \
|| { code=$$?; [ $$code -eq 5 ] && [ -n "$$PYTEST_ARGS" ]; }
endef
export PYTEST_ARGS

# $(call only,paths,modules): no file of the package but these imports the modules. pyproject.toml bans them too, so that
# editors show it; but there ruff excuses a file from all bans or from none, so each is checked once more by itself.
package := airflow_provider_describer
comma := ,
define only
.venv/airflow-$(AIRFLOW_NEWEST)/bin/ruff check --isolated --select TID251 $(package) $(addprefix --exclude $(package)/,$(1)) \
--config 'lint.flake8-tidy-imports.banned-api = { $(foreach module,$(2),"$(module)" = { msg = "For $(1) only" }$(comma)) }'
endef
airflow_rooms := hooks operators sensors triggers decorators notifications links lineage provider_info.py

# --- environments: each is set up once, and again when what it is made of changes ------------------------------------

tools := .venv/tools/uv-$(UV_VERSION)
$(tools):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 …"; exit 1; }
	$(call quietly,set up the tools,$(PYTHON) -m venv --clear .venv/tools && .venv/tools/bin/python -m pip install -q uv==$(UV_VERSION))
	@touch $@

# The package's requirements with all extras, without the package: the linters read the checkout, the tests a wheel.
# Airflow 3.1 does not install on Python 3.14; uv then looks for an older one on this machine.
python_airflow-3.1 := "$$(.venv/tools/bin/python -c 'import sys; print(sys.executable if sys.version_info < (3, 14) else ">=3.11,<3.14")')"

.venv/core/.ready: pyproject.toml constraints/airflow-$(AIRFLOW_NEWEST).txt | $(tools)
	$(call quietly,set up the core environment (without Airflow),$(call environment,core,-c constraints/airflow-$(AIRFLOW_NEWEST).txt --group core --group test) && $(uv) pip install -q --python .venv/core --no-deps -e .)
	@touch $@

.venv/bench/.ready: pyproject.toml constraints/airflow-$(AIRFLOW_NEWEST).txt | $(tools)
	$(call quietly,set up the benchmarks,$(call environment,bench,-c constraints/airflow-$(AIRFLOW_NEWEST).txt --group bench -e '.[emulator]'))
	@touch $@

.venv/demo/.ready: pyproject.toml constraints/airflow-$(AIRFLOW_NEWEST).txt | $(tools)
	$(call quietly,set up Airflow $(AIRFLOW_3.3) with the package,$(call environment,demo,-c constraints/airflow-$(AIRFLOW_NEWEST).txt -e '.[emulator]'))
	@touch $@

.venv/airflow-%/.ready: Makefile pyproject.toml constraints/airflow-%.txt | $(tools)
	$(call quietly,set up Airflow $(AIRFLOW_$*) for the tests,$(call environment,airflow-$*,-c constraints/airflow-$*.txt apache-airflow==$(AIRFLOW_$*) -r pyproject.toml --all-extras --group core --group test --group live $(if $(filter $*,$(AIRFLOW_NEWEST)),--group lint)))
	@touch $@

# Folders are sources too, so that a deleted file is noticed.
build/dist/.built: pyproject.toml README.md LICENSE $(shell find airflow_provider_describer -not -path '*__pycache__*') | $(tools)
	$(call quietly,build the wheel and the source distribution,rm -rf build/dist && $(uv) build -q --build-constraints constraints/airflow-$(AIRFLOW_NEWEST).txt --out-dir build/dist)
	@touch $@

.venv/airflow-%/.wheel: .venv/airflow-%/.ready build/dist/.built
	$(call quietly,install the wheel beside Airflow $(AIRFLOW_$*),$(uv) pip install -q --python .venv/airflow-$* -c constraints/airflow-$*.txt --reinstall-package airflow-provider-describer "$$(ls build/dist/*.whl)[emulator$(comma)amazon$(comma)google$(comma)parquet$(comma)scaling]")
	@touch $@

build/demo/photographs/CREDITS.txt: demo/photographs.py | $(tools)
	$(call quietly,fetch the photographs,.venv/tools/bin/python demo/photographs.py build/demo/photographs)

# --- what there is to make -----------------------------------------------------------------------------------------

demo: .venv/demo/.ready build/demo/photographs/CREDITS.txt ## describe real photographs in a real Airflow: make demo [VENDOR=segmind KEY=…]
	@.venv/demo/bin/python demo/run.py

test: lint test-core test-newest test-floor test-live ## lint, then every test, each where it belongs: make test [PYTEST_ARGS="-k words"]

test-core: .venv/core/.ready
	@printf '\nCore tests, where Airflow is not installed\n'
	$(call pytest,core,tests --ignore=tests/airflow)

test-newest: export DESCRIBER_EXPECT_WHEEL := 1
test-newest: .venv/airflow-$(AIRFLOW_NEWEST)/.wheel
	@printf '\nAll tests, of the built wheel, beside Airflow $(AIRFLOW_3.3)\n'
	$(call pytest,airflow-$(AIRFLOW_NEWEST),tests --ignore=tests/airflow/live)

test-floor: export DESCRIBER_EXPECT_WHEEL := 1
test-floor: .venv/airflow-$(AIRFLOW_FLOOR)/.wheel
	@printf '\nAirflow tests, of the built wheel, beside Airflow $(AIRFLOW_3.1)\n'
	$(call pytest,airflow-$(AIRFLOW_FLOOR),tests -m airflow --ignore=tests/airflow/live)

test-live: export DESCRIBER_EXPECT_WHEEL := 1
test-live: .venv/airflow-$(AIRFLOW_NEWEST)/.wheel .venv/airflow-$(AIRFLOW_FLOOR)/.wheel ## the tests in a running Airflow: scheduler, triggerer, workers
	@printf '\nTests in a running Airflow $(AIRFLOW_3.3)\n'
	$(call pytest,airflow-$(AIRFLOW_NEWEST),tests/airflow/live)
	@printf '\nTests in a running Airflow $(AIRFLOW_3.1)\n'
	$(call pytest,airflow-$(AIRFLOW_FLOOR),tests/airflow/live)

lint: .venv/airflow-$(AIRFLOW_NEWEST)/.ready ## check style, architecture and types
	$(call quietly,ruff check,.venv/airflow-$(AIRFLOW_NEWEST)/bin/ruff check $(CODE))
	$(call quietly,ruff check: who may import Airflow,$(call only,$(airflow_rooms),airflow))
	$(call quietly,ruff check: who may speak to clouds,$(call only,storage hooks,obstore boto3 botocore google.cloud google.auth))
	$(call quietly,ruff check: who may speak HTTP,$(call only,http/library.py emulator,httpx httpcore h11 requests aiohttp urllib3 urllib.request http.client))
	$(call quietly,ruff format,.venv/airflow-$(AIRFLOW_NEWEST)/bin/ruff format --check --diff $(CODE))
	$(call quietly,mypy,.venv/airflow-$(AIRFLOW_NEWEST)/bin/mypy $(CODE))

bench: .venv/bench/.ready ## measure, on an idle machine: make bench [BENCH_ARGS=--quick]
	@.venv/bench/bin/python benchmarks/engine.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/objects.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/shared_limits.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/airflow_run.py

lock: | $(tools) ## pin the dependencies again: make lock [UPGRADE=1]
	$(foreach minor,$(AIRFLOW_NEWEST) $(AIRFLOW_FLOOR),$(call lock,$(minor)))

clean: ## remove all that make has made
	rm -rf .venv .cache build

define lock
@mkdir -p build constraints; echo "apache-airflow==$(AIRFLOW_$(1))" >build/airflow-$(1).in
$(call quietly,resolve for Airflow $(AIRFLOW_$(1)),$(uv) pip compile -q pyproject.toml --all-extras --group dev --universal --python-version 3.11 -c build/airflow-$(1).in --no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) -o constraints/airflow-$(1).txt)

endef
