# What .venv holds stays there until KAFKA_CLIENT says otherwise.
KAFKA_CLIENT ?= $(or $(patsubst .venv/installed-%,%,$(wildcard .venv/installed-*)),kafka-python-ng)
KAFKA_TOPIC ?= test-topic
export KAFKA_TOPIC
# to the shell as they are, with whatever quotes and dollars are in them
override STATE := $(value STATE)
override COUNT := $(value COUNT)
override ONLY := $(value ONLY)
export STATE COUNT ONLY
# what is used is compiled once, whatever the shell says
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed-$(KAFKA_CLIENT)
comma := ,
# pip verifies its hash, and it those of the rest: pip installs no folder where hashes are given
UV := $(BIN)/uv
# the extra $(1) of this project
install = $(UV) pip install --quiet --python $(BIN)/python --constraint constraints-dev.txt --editable '.[$(1)]'
# an environment of its own, $(1), with what $(2) says
environment = $(UV) venv --quiet --clear --python $(PYTHON) $(1) && $(UV) pip install --quiet --python $(1) --constraint constraints-dev.txt $(2)
# the Python that there is, and none that is fetched
export UV_PYTHON_DOWNLOADS := never
# as many at once as tests/conftest.py says, which depends on the cores
PARALLEL = $(if $(findstring no:xdist,$(ARGS)),,-n auto --dist loadgroup)
# of the Apache Kafka that tests start
VERSION_OPTION = $(if $(KAFKA_VERSION),--kafka-version=$(KAFKA_VERSION))

.DEFAULT_GOAL := help
.PHONY: help install run kafka run-producer test test-python test-lowest coverage soak follow lint docs bench growth demo-model audit lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## Install the service into .venv; KAFKA_CLIENT=kafka-python for the other client

# the pip of $(PYTHON), since 22.3: to put one into .venv takes longer than all that it installs
HAS_PIP = import pip; print("yes" if tuple(map(int, pip.__version__.split(".")[:2])) >= (22, 3) else "")

$(UV): uv-requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; $(PYTHON) is " + sys.version.split()[0])'
	@# one that does not answer is left from a making that was interrupted
	@test "$$($(BIN)/python -c 'print(1)' 2>/dev/null)" = 1 || $(PYTHON) -m venv --clear --without-pip .venv
	@if test "$$($(PYTHON) -c '$(HAS_PIP)' 2>/dev/null)"; then pip="$(PYTHON) -m pip --python $(BIN)/python"; \
		else $(BIN)/python -m ensurepip >/dev/null && pip="$(BIN)/python -m pip"; fi; \
		$$pip install --quiet --disable-pip-version-check --require-hashes --requirement uv-requirements.txt
	@touch $@

$(INSTALLED): setup.cfg pyproject.toml constraints-dev.txt $(UV)
ifeq ($(filter $(KAFKA_CLIENT),kafka-python-ng kafka-python),)
	$(error KAFKA_CLIENT is '$(KAFKA_CLIENT)': accepted are kafka-python-ng and kafka-python)
endif
	@rm -f .venv/installed-*
	@echo "Installing into .venv with $(KAFKA_CLIENT) ..."
	@# both clients are imported as kafka: the one goes before the other comes
	@$(UV) pip uninstall --quiet --python $(BIN)/python kafka-python kafka-python-ng
	@$(call install,$(KAFKA_CLIENT)$(comma)embedded-broker)
	@touch $@

# on top of it, and only where they are wanted: .venv/with-onnx, .venv/with-dev
.venv/with-%: setup.cfg pyproject.toml constraints-dev.txt | $(INSTALLED)
	@echo "Installing what $* needs into .venv ..."
	@$(call install,$*)
	@touch $@

run: install $(if $(filter onnx,$(STATE_LOADER)),.venv/with-onnx) ## Serve on http://localhost:8000, with an embedded broker if no other one answers
	@exec $(BIN)/python -m dev

kafka: install ## A real Apache Kafka on localhost:9092, until Ctrl-C; needs java and mvn
	@exec $(BIN)/python -m dev.local_kafka

run-producer: install ## Send a message; STATE=77 for a given state, COUNT=1000 for many
	@exec $(BIN)/python -m dev.served $(if $(STATE),--state "$$STATE") $(if $(COUNT),--count "$$COUNT")

# one of its tests runs the README's commands in this folder: what they install is there before, for
# while an extra is installed nobody can import this project
test: install .venv/with-onnx .venv/with-dev ## Run every test; ARGS="-k name" to choose, KAFKA_VERSION=3.9.1 for another Kafka
	@$(BIN)/python -m pytest $(PARALLEL) $(VERSION_OPTION) $(ARGS)

# its own environment, made anew each time: what others have left there is not tried
test-python: $(UV) ## Run the unit tests on another Python: PYTHON=python3.13
	@$(call environment,.venv-$(notdir $(PYTHON)),--editable '.[$(KAFKA_CLIENT)$(comma)dev]')
	@.venv-$(notdir $(PYTHON))/bin/python -m pytest $(PARALLEL) --embedded-broker tests/unit $(ARGS)

test-lowest: $(UV) ## Run the unit tests with the oldest packages that setup.cfg allows
	@$(call environment,.venv-lowest,--editable '.[$(KAFKA_CLIENT)$(comma)dev]')
	@$(UV) pip install --quiet --python .venv-lowest --constraint constraints-lowest.txt --editable '.[$(KAFKA_CLIENT)$(comma)embedded-broker$(comma)msk-iam$(comma)oauth$(comma)onnx$(comma)s3$(comma)sftp]'
	@.venv-lowest/bin/python -m pytest $(PARALLEL) --embedded-broker -W default tests/unit $(ARGS)

coverage: install .venv/with-onnx .venv/with-dev ## Say which lines and branches the unit tests run
	@rm -rf .coverage
	@$(BIN)/coverage run --rcfile=setup.cfg -m pytest $(PARALLEL) --embedded-broker -m "not alone" tests/unit $(ARGS)
	@$(BIN)/coverage combine --rcfile=setup.cfg --quiet
	@$(BIN)/coverage report --rcfile=setup.cfg --skip-covered

soak: install .venv/with-dev ## Ten minutes of random faults; ARGS="--soak-seed=1" to repeat the faults of a run
	@$(BIN)/python -m pytest -s --soak-seconds=600 $(VERSION_OPTION) tests/integration/whole/test_soak.py $(ARGS)

follow: install .venv/with-dev ## Ten minutes of random histories of topics; ARGS="--following-seed=1" to repeat a history
	@$(BIN)/python -m pytest -s --following-seconds=600 $(VERSION_OPTION) tests/integration/following/test_any_following.py $(ARGS)

lint: install .venv/with-dev ## Check style, types, and which folder of app/ imports which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

docs: install .venv-docs/installed ## Rewrite the generated parts of docs/, and build the site in build/docs
	@$(BIN)/python -m dev.docs
	@.venv-docs/bin/python -m sphinx -c docs -b html --fail-on-warning --keep-going --quiet . build/docs
	@echo "The site is build/docs/index.html"

.venv-docs/installed: setup.cfg constraints-dev.txt | $(UV)
	@echo "Installing into .venv-docs ..."
	@$(call environment,.venv-docs,--editable '.[docs]')
	@touch $@

bench: .venv-bench/installed ## Benchmark this service and similar ones; QUICK=1 for four minutes, ONLY=lone for a part
	@exec .venv-bench/bin/python -m bench $(if $(QUICK),--quick) $(if $(ONLY),--only "$$ONLY")

growth: .venv-bench/installed ## Measure what many instances cost a broker, in some 30 minutes; QUICK=1 for two minutes
	@exec .venv-bench/bin/python -m bench.growth $(if $(QUICK),--quick) $(addprefix --instances=,$(ONLY))

# in an environment of its own, which has both clients: the one is chosen by PYTHONPATH
.venv-bench/installed: setup.cfg constraints-dev.txt bench/requirements.txt | $(UV)
	@echo "Installing into .venv-bench ..."
	@$(call environment,.venv-bench,--editable '.[kafka-python-ng$(comma)onnx]' --requirement bench/requirements.txt)
	@$(UV) pip install --quiet --python .venv-bench --constraint constraints-dev.txt --target .venv-bench/kafka-python kafka-python
	@touch $@

demo-model: .venv-demo/installed ## Retrain a model and swap it while a client keeps asking it
	@exec .venv-demo/bin/python -m examples.model

.venv-demo/installed: setup.cfg constraints-dev.txt | $(UV)
	@echo "Installing into .venv-demo ..."
	@$(call environment,.venv-demo,--editable '.[kafka-python-ng$(comma)embedded-broker$(comma)onnx$(comma)demo]')
	@touch $@

audit: .venv-audit/bin/pip-audit install .venv/with-dev ## Look for known vulnerabilities in the installed packages
	@PATH="$(CURDIR)/.venv-audit/bin:$$PATH" $(BIN)/python -m dev.audit

# in an environment of its own: what it needs is none of ours
.venv-audit/bin/pip-audit: dev/audit-requirements.txt
	@$(PYTHON) -m venv --clear .venv-audit
	@.venv-audit/bin/pip install --quiet --requirement dev/audit-requirements.txt
	@touch $@

lock: .venv/with-dev ## Pin what setup.cfg asks for, in constraints*.txt; ARGS=--upgrade for the newest versions
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m dev.lock $(ARGS)

clean: ## Remove what the commands above made
	rm -rf .venv .venv-* .coverage build dev/kafka/target *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
