# `make` alone lists what there is to make.
# Needs Python 3.11 or newer (with venv), make and a package index. Everything made lies in .venv/, .cache/ and build/.

PYTHON ?= python3
UV_VERSION := 0.13.8

# The newest Airflow, with which `make test` works; the oldest that is supported; and a pre-release, to see what comes.
NEWEST := 3.3
FLOOR := 3.1
AIRFLOW_3.3 := ==3.3.2
AIRFLOW_3.1 := ==3.1.8
AIRFLOW_3.4 := >=3.4.0b2
PRE_RELEASE := 3.4

CODE := $(wildcard airflow_provider_describer benchmarks demo docs/conf.py example_dags tests)
# Tests wait more than they compute, so more of them run at a time than there are processors.
PROCESSES := $(shell $(PYTHON) -c 'import os; print(min(8, (os.cpu_count() or 1) + 1))')

# Tests that start an Airflow of several processes; each folder is a target of its own.
RUNNING := --ignore=tests/airflow/live --ignore=tests/airflow/fleet

# The demo's vendor and key reach demo/run.py through the environment, never as arguments.
VENDOR ?= image_describer
export VENDOR KEY
export PYTEST_ARGS

export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help demo docs test test-all report lint bench lock clean \
	lint-style lint-imports lint-types test-core test-airflow test-slow

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- ways to run a command -----------------------------------------------------------------------------------------

# $(call quietly,what,command): print one line with the seconds, and the command's own output only if it fails.
define quietly
@mkdir -p build; log=build/$$$$.log; start=$$(date +%s); \
if { $(2); } >$$log 2>&1; then printf '  %-58s %4d s\n' "$(1)" $$(($$(date +%s) - start)); rm -f $$log; \
else printf '  %-58s failed\n\n' "$(1)"; cat $$log; rm -f $$log; exit 1; fi
endef

# uv uses the package index that pip is configured for, unless it is told another.
define uv
index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(.venv/tools/bin/python -m pip config get global.index-url 2>/dev/null)}}"; \
if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; .venv/tools/bin/uv
endef

# $(call environment,name,options and packages,python): make a fresh virtual environment.
environment = $(uv) venv -q --clear --python $(or $(3),.venv/tools/bin/python) .venv/$(1) && \
	$(uv) pip install -q --python .venv/$(1) $(2)

# $(call pytest,environment,name,arguments): PYTEST_ARGS="-k words" chooses tests; choosing none of these is no failure.
define pytest
@rm -rf build/pytest/$(2); mkdir -p build/pytest; \
.venv/$(1)/bin/pytest -q -o cache_dir=.cache/pytest-$(2) --basetemp=build/pytest/$(2) $(3) $(PYTEST_ARGS) \
|| { code=$$?; [ $$code -eq 5 ] && [ -n "$(4)$$PYTEST_ARGS" ]; }
endef

# $(call side_by_side,targets): make them at the same time; each prints its output when it has ended, and all end.
side_by_side = $(MAKE) --no-print-directory --keep-going -j4 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) $(1)

# --- environments: each is set up once, and again when what it is made of changes ------------------------------------

tools := .venv/tools/uv-$(UV_VERSION)
$(tools):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 …"; exit 1; }
	$(call quietly,set up uv,$(PYTHON) -m venv --clear .venv/tools && .venv/tools/bin/python -m pip install -q uv==$(UV_VERSION))
	@touch $@

pinned = -c constraints/airflow-$(1).txt
newest := $(call pinned,$(NEWEST))
# Everything that the tests need beside an Airflow: the package's requirements and all extras, without the package.
tested := -r pyproject.toml --all-extras --group core --group test --group live

# Airflow 3.1 does not install on Python 3.14: uv looks for an older one on this machine then.
older_python := "$$(.venv/tools/bin/python -c 'import sys; print(sys.executable if sys.version_info < (3, 14) else ">=3.11,<3.14")')"

.venv/core/.ready: pyproject.toml constraints/airflow-$(NEWEST).txt | $(tools)
	$(call quietly,set up the core without Airflow,$(call environment,core,$(newest) --group core --group test) && $(uv) pip install -q --python .venv/core --no-deps -e .)
	@touch $@

.venv/airflow-$(NEWEST)/.ready: pyproject.toml constraints/airflow-$(NEWEST).txt | $(tools)
	$(call quietly,set up Airflow $(NEWEST) with the tests and linters,$(call environment,airflow-$(NEWEST),$(newest) 'apache-airflow$(AIRFLOW_$(NEWEST))' $(tested) --group lint -e .))
	@touch $@

.venv/bench/.ready: pyproject.toml constraints/airflow-$(NEWEST).txt | $(tools)
	$(call quietly,set up the benchmarks,$(call environment,bench,$(newest) --group bench -e '.[emulator]'))
	@touch $@

.venv/docs/.ready: pyproject.toml constraints/airflow-$(NEWEST).txt | $(tools)
	$(call quietly,set up the documentation's generator,$(call environment,docs,$(newest) --group docs))
	@touch $@

.venv/demo/.ready: pyproject.toml constraints/airflow-$(NEWEST).txt | $(tools)
	$(call quietly,set up Airflow $(NEWEST) with the package,$(call environment,demo,$(newest) 'apache-airflow$(AIRFLOW_$(NEWEST))' -e '.[emulator]'))
	@touch $@

# Folders are prerequisites too, so that a deleted file is noticed.
build/dist/.built: pyproject.toml README.md LICENSE $(shell find airflow_provider_describer -not -path '*__pycache__*') | $(tools)
	$(call quietly,build the wheel and the source distribution,rm -rf build/dist && $(uv) build -q --build-constraints constraints/airflow-$(NEWEST).txt --out-dir build/dist)
	@touch $@

.venv/wheel-%/.ready: pyproject.toml $(wildcard constraints/*.txt) build/dist/.built
	$(call quietly,set up Airflow $* with the wheel,$(call environment,wheel-$*,$(if $(wildcard constraints/airflow-$*.txt),$(call pinned,$*)) 'apache-airflow$(AIRFLOW_$*)' $(tested) "$$(ls build/dist/*.whl)",$(if $(filter $*,$(FLOOR)),$(older_python))))
	@touch $@

build/demo/photographs/CREDITS.txt: demo/photographs.py | $(tools)
	$(call quietly,fetch the photographs,.venv/tools/bin/python demo/photographs.py build/demo/photographs)

# --- what there is to make -----------------------------------------------------------------------------------------

demo: .venv/demo/.ready build/demo/photographs/CREDITS.txt ## describe real photographs in a real Airflow: make demo [VENDOR=segmind KEY=…]
	@.venv/demo/bin/python demo/run.py

# Each warning, such as a link that leads nowhere, is an error. External links are not followed.
docs: .venv/docs/.ready ## build the documentation into build/docs/html
	$(call quietly,build the documentation,.venv/docs/bin/sphinx-build -q -E -W --keep-going -d build/docs/doctrees docs build/docs/html)

test: ## run the linters and the tests, in a few minutes: make test [PYTEST_ARGS="-k words"]
	@echo 'The linters, the core tests and the Airflow tests run side by side. Each prints its output when it has ended.'
	@$(call side_by_side,test-core test-airflow lint)

test-all: test docs ## the same, then the documentation, slow tests, the wheel, the oldest Airflow, a running Airflow and a fleet
	@$(MAKE) --no-print-directory test-slow
	@$(MAKE) --no-print-directory test-wheel-$(NEWEST)
	@$(MAKE) --no-print-directory test-wheel-$(FLOOR)
	@$(MAKE) --no-print-directory test-live-$(NEWEST)
	@$(MAKE) --no-print-directory test-live-$(FLOOR)
	@$(MAKE) --no-print-directory test-fleet-$(NEWEST)

report: ## run the Airflow tests with the next Airflow, a pre-release; what fails there is reported only
	@$(MAKE) --no-print-directory report-wheel-$(PRE_RELEASE)

lint: lint-style lint-imports lint-types ## check style, architecture and types

bench: .venv/bench/.ready ## measure, on an idle machine: make bench [BENCH_ARGS=--quick]
	@.venv/bench/bin/python benchmarks/engine.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/objects.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/store.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/million.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/page.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/shared_limits.py $(BENCH_ARGS)
	@.venv/bench/bin/python benchmarks/airflow_run.py
	@.venv/bench/bin/python benchmarks/imports.py $(BENCH_ARGS)

lock: | $(tools) ## pin the dependencies again: make lock [UPGRADE=1]
	$(foreach minor,$(NEWEST) $(FLOOR),$(call lock,$(minor)))

clean: ## remove all that make has made
	rm -rf .venv .cache build

# --- the parts of `lint` and of the tests --------------------------------------------------------------------------

linters := .venv/airflow-$(NEWEST)/bin

lint-style: .venv/airflow-$(NEWEST)/.ready
	$(call quietly,ruff check,$(linters)/ruff check $(CODE))
	$(call quietly,ruff format,$(linters)/ruff format --check --diff $(CODE))

lint-imports: .venv/airflow-$(NEWEST)/.ready
	$(call quietly,import-linter,$(linters)/lint-imports --no-logo --cache-dir .cache/import-linter)
	$(call quietly,at most 6 modules outside the rooms,[ $$(ls airflow_provider_describer/*.py | wc -l) -le 6 ])

lint-types: .venv/airflow-$(NEWEST)/.ready
	$(call quietly,mypy,$(linters)/mypy $(CODE))

test-core: .venv/core/.ready
	@printf '\nCore tests, without Airflow\n'
	$(call pytest,core,core,-n $(PROCESSES) --dist worksteal -m 'not slow' --ignore=tests/airflow tests)

test-airflow: .venv/airflow-$(NEWEST)/.ready
	@printf '\nAirflow tests, with Airflow $(NEWEST)\n'
	$(call pytest,airflow-$(NEWEST),airflow,-n $(PROCESSES) --dist loadfile -m 'not slow' $(RUNNING) tests/airflow)

# The slow tests of these rooms and of Airflow mostly wait: they run side by side. The others run one at a time, since
# some are about the clock.
WAITING := tests/money tests/store

test-slow: .venv/core/.ready .venv/airflow-$(NEWEST)/.ready
	@printf '\nSlow tests\n'
	$(call pytest,core,slow-kills,-n $(PROCESSES) --dist worksteal -m slow $(WAITING),may be none)
	$(call pytest,core,slow-core,-m slow --ignore=tests/airflow $(addprefix --ignore=,$(WAITING)) tests,may be none)
	$(call pytest,airflow-$(NEWEST),slow-airflow,-n $(PROCESSES) --dist worksteal -m slow $(RUNNING) tests/airflow,may be none)

# PYTHONSAFEPATH keeps the checkout off the path of what a test starts: the wheel is tested.
test-wheel-% test-live-% test-fleet-% report-wheel-%: export PYTHONSAFEPATH := 1
test-wheel-% test-live-% test-fleet-% report-wheel-%: export DESCRIBER_EXPECT_WHEEL := 1

# What the checkout has shown with the newest Airflow, its wheel need not show again: only what a wheel may lack.
test-wheel-$(NEWEST): of_wheel := $(addprefix tests/airflow/test_,package.py plugin.py readme.py example_dags.py form.py)

test-wheel-%: .venv/wheel-%/.ready
	@printf '\nAirflow tests of the wheel, with Airflow $*\n'
	$(call pytest,wheel-$*,wheel-$*,-n $(PROCESSES) --dist loadfile -m 'not slow' $(RUNNING) $(or $(of_wheel),tests/airflow))

test-live-%: .venv/wheel-%/.ready
	@printf '\nTests of the wheel in a running Airflow $*\n'
	$(call pytest,wheel-$*,live-$*,tests/airflow/live)

test-fleet-%: .venv/wheel-%/.ready
	@printf '\nTests of the wheel in a running Airflow $* with two Celery workers\n'
	$(call pytest,wheel-$*,fleet-$*,-rP tests/airflow/fleet)

# For information: what fails with a pre-release does not fail the rest.
report-wheel-%:
	@$(MAKE) --no-print-directory test-wheel-$* || echo 'Airflow $* is a pre-release: its failures are reported only.'

define lock
@mkdir -p build constraints; echo 'apache-airflow$(AIRFLOW_$(1))' >build/airflow-$(1).in
$(call quietly,resolve for Airflow $(1),$(uv) pip compile -q pyproject.toml --all-extras --group dev --universal --python-version 3.11 -c build/airflow-$(1).in --no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) -o constraints/airflow-$(1).txt)

endef
