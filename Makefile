# Everything a newcomer types. `make demo` and `make test` need only Python 3.11+ and this file;
# PYTHON=python3.13 make test uses another interpreter.

find = $(shell for p in $(1) $$(ls -d "$$(pyenv root 2>/dev/null)"/versions/*/bin/$(lastword $(1)) 2>/dev/null); \
  do "$$p" -c '' 2>/dev/null && { command -v "$$p"; break; }; done)

PYTHON ?= $(or $(call find,python3.11),$(call find,python3.12),$(call find,python3.13),python3)
VENV ?= .venv
RUN := $(VENV)/bin/python
# A test waits for its servers half of the time: six of them keep two processors busy. What a class
# watches together stays together.
SIDE_BY_SIDE ?= -n 6 --dist loadscope
NEWER := $(call find,python3.13)
# Some images set it; servers are started a thousand times here, and would compile the library anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check bench clean

demo: $(VENV)/.demo
	$(RUN) -m graceful.cli rehearse --instances 2 --rolls 1 --rate 100 --websockets 20 --sse 20 \
	  --balancer internal -- $(RUN) -m uvicorn examples.starlette_app:app --port {port} --no-access-log

test: $(VENV)/.dev
	$(RUN) -m pytest $(SIDE_BY_SIDE)
	@if [ -n "$(NEWER)" ] && $(RUN) -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; \
	then $(MAKE) --no-print-directory newer; \
	else echo "python3.13 is not installed: the suite ran on $$($(RUN) -V) only"; fi

# asyncio closes servers differently since 3.12.1, so what stops real processes runs there too.
.PHONY: newer
newer: .venv-3.13/.dev
	.venv-3.13/bin/python -m pytest $(SIDE_BY_SIDE) tests/core tests/shells tests/servers/test_uvicorn.py \
	  tests/servers/test_hypercorn.py tests/servers/test_daphne.py tests/servers/test_waitress.py

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright

# A benchmark that misses its bar says so by its status; the others are run all the same.
bench: $(VENV)/.dev
	-$(RUN) -m tests.benchmarks.hot_path
	-$(RUN) -m tests.benchmarks.throughput
	-$(RUN) -m tests.benchmarks.wsgi_hot_path
	-$(RUN) -m tests.benchmarks.wsgi_throughput
	-$(RUN) -m tests.benchmarks.gunicorn_flip
	-$(RUN) -m tests.benchmarks.gunicorn_streams
	-$(RUN) -m tests.benchmarks.rolling_restarts
	-$(RUN) -m tests.benchmarks.gunicorn_restarts
	-$(RUN) -m tests.benchmarks.server_restarts
	-$(RUN) -m tests.benchmarks.grpc_restarts

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "graceful needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --editable '.[uvicorn,starlette,rehearsal]' 'uvicorn[standard]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --editable '.[dev]'
	@touch $@

.venv-3.13/.dev: pyproject.toml
	$(NEWER) -m venv .venv-3.13
	.venv-3.13/bin/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv-3.13 .pytest_cache .mypy_cache .ruff_cache .hypothesis
