# What a person and continuous integration run. Needs python3 (3.11 to 3.13), pip and make.

PYTHON ?= python3
VENV ?= .venv
# Test processes at a time.
WORKERS ?= 2

bin := $(VENV)/bin
lines := 3.11 3.12 3.13

# The oldest systems that every wheel in the constraints files runs on.
linux := --python-platform x86_64-manylinux_2_31
macos := --python-platform aarch64-apple-darwin
macos_version := 13.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all check-triton lint format report clean constraints check-constraints check-python

help: ## Show this list.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter (3.11 to 3.13), VENV=folder the environment."

# ---------------------------------------------------------------- The main job

# One plain command a line: make hands a signal on to it, it says how to go on, and its exit code
# is the one that make shows.
demo: $(VENV)/.installed-demo ## Install, compare optimizers and CTC encoders, say where the reports are.
	@$(bin)/python -m experiments.compare_optimizers quick
	@$(bin)/python -m experiments.compare_ctc quick
	@echo
	@echo "Both comparisons are done. Their reports, to open in a browser:"
	@for experiment in compare_optimizers compare_ctc; do \
		echo "  $$(ls -t runs/$$experiment/quick-*/report.html | head -n 1)"; \
	done

report: $(VENV)/.installed-demo ## Write the report of RUN=runs/<experiment>/<run> again from its records.
	@test -n "$(RUN)" || { echo "Name the run: make report RUN=runs/<experiment>/<run>"; exit 2; }
	@$(bin)/python -m research.report "$(RUN)"

# ---------------------------------------------------------------- Tests

# Tests of one file share their fixtures and compiled programs, hence one process. The plugin would
# begin with the files of most tests; tests/conftest.py begins with those that take longest.
workers := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test: lint ## Install and run what continuous integration runs.
	$(bin)/python -m pytest $(workers)

test-all: lint check-triton $(VENV)/.installed-peers ## The long tests, those with torch, and with TRELLIS_DATA=folder those on published data.
	$(bin)/python -m pytest $(workers) -m "not gpu"

lint: $(VENV)/.installed-test ## Check style, types and the direction of imports.
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright --pythonpath $(bin)/python
	$(bin)/lint-imports --no-cache

# The tests have the newest that fits, in whose interpreter and compiler kernels may do more.
check-triton: $(VENV)/.installed-test ## Compile every kernel with the oldest Triton that is allowed (Linux).
	@if $(bin)/python -c 'import triton' 2>/dev/null; then \
		$(bin)/python -m pip install --disable-pip-version-check --quiet --upgrade --no-deps \
			--target $(oldest_triton) "triton==$$(sed -n 's/.*"triton>=\([0-9.]*\),.*/\1/p' pyproject.toml).*" && \
		PYTHONPATH=$(oldest_triton) $(bin)/python -m kernels.static_report --arch sm_90 >/dev/null && \
		PYTHONPATH=$(oldest_triton) $(bin)/python -c \
			'import triton; print("every kernel compiles with Triton", triton.__version__)'; \
	fi

format: $(VENV)/.installed-test ## Mend style where a tool can.
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

# ---------------------------------------------------------------- Installation

# Runs every time: make's own order-only rule keeps it from causing an installation.
check-python:
	@if ! command -v $(PYTHON) >/dev/null 2>&1; then \
		echo "$(PYTHON) was not found. Install Python 3.11, 3.12 or 3.13, or name one: PYTHON=/path/to/python3"; \
		exit 1; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "Trellis needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: PYTHON=python3.12"; \
		exit 1; \
	}
	@if [ -e $(VENV)/.created ] && ! $(bin)/python -c '' 2>/dev/null; then \
		echo "The interpreter of $(VENV) is gone. Run 'make clean' and start again."; \
		exit 1; \
	fi
ifneq ($(origin PYTHON),file)
	@if [ -e $(VENV)/.created ] && [ "$$($(bin)/python -V)" != "$$($(PYTHON) -V)" ]; then \
		echo "$(VENV) was made with $$($(bin)/python -V), and $(PYTHON) is $$($(PYTHON) -V)."; \
		echo "Run 'make clean' first, or keep both: VENV=.venv-other"; \
		exit 1; \
	fi
endif

# Some distributions leave ensurepip out: then the pip of the interpreter puts one into the
# environment (--python is an option of pip 22.3 and newer).
$(VENV)/.created: | check-python
	@echo "Creating $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(bin)/python install --quiet pip; \
	} || { \
		echo "No environment could be made: install pip 22.3 or newer, or the venv package of the system."; \
		exit 1; \
	}
	@touch $@

requirements := pyproject.toml $(wildcard constraints-*.txt) $(VENV)/.created
install = $(bin)/python -m pip install --disable-pip-version-check --constraint \
	constraints-$$($(bin)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt

$(VENV)/.installed-demo: $(requirements) | check-python
	$(install) --editable '.[synthesis]'
	@touch $@

# Kernels are compiled for GPUs that are not here with JAX's CUDA plugin, in a folder of its own:
# kernels/launch.py says why. Without its dependencies, which are what a GPU needs to run them.
cuda := $(VENV)/share/trellis/cuda

oldest_triton := $(VENV)/share/trellis/oldest-triton

# Other people's optimizers, which ours are compared with, in a folder of their own: they need torch,
# which is no dependency of Trellis. On Linux that is its build for the CPU, a fifth of the usual one,
# where pip has been told of an index that has it; without it the tests that need it are skipped.
peers := $(VENV)/share/trellis/peers

$(VENV)/.installed-peers: tests/optimizers/peers.txt $(VENV)/.installed-test
	@rm -rf $(peers) && \
		$(install) --no-deps --target $(peers) --requirement tests/optimizers/peers.txt && touch $@ || \
		echo "Tests against other people's optimizers are skipped: pip found no build of torch for the CPU."

$(VENV)/.installed-test: $(requirements) | check-python
	$(install) --editable '.[test,synthesis,triton]'
	@if $(bin)/python -c 'import triton' 2>/dev/null; then \
		rm -rf $(cuda) && \
		$(install) --no-deps --target $(cuda) jax-cuda12-plugin jax-cuda12-pjrt; \
	fi
	@touch $(VENV)/.installed-demo $@

$(VENV)/.installed-uv: $(VENV)/.created | check-python
	$(bin)/python -m pip install --disable-pip-version-check --quiet uv
	@touch $@

clean: ## Remove the environment, caches and build outputs; runs/ stays.
	rm -rf $(VENV) build dist *.egg-info .import_linter_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- Exact versions

# Each system is resolved on its own, from wheels only; a pin that both share has no marker.
resolve = MACOSX_DEPLOYMENT_TARGET=$(macos_version) UV_PYTHON_DOWNLOADS=never $(bin)/uv pip compile \
	--quiet --all-extras --only-binary :all: --no-header --no-annotate pyproject.toml

constraints: $(VENV)/.installed-uv ## Choose the newest versions that fit and write constraints-3.*.txt.
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && export LC_ALL=C && for line in $(lines); do \
		$(resolve) --python-version $$line $(linux) --output-file "$$work/linux-$$line" >/dev/null && \
		$(resolve) --python-version $$line $(macos) --output-file "$$work/macos-$$line" >/dev/null && \
		sort "$$work/linux-$$line" >"$$work/linux.sorted" && \
		sort "$$work/macos-$$line" >"$$work/macos.sorted" && \
		{ \
			comm -12 "$$work/linux.sorted" "$$work/macos.sorted"; \
			comm -23 "$$work/linux.sorted" "$$work/macos.sorted" | sed "s/$$/ ; sys_platform == 'linux'/"; \
			comm -13 "$$work/linux.sorted" "$$work/macos.sorted" | sed "s/$$/ ; sys_platform == 'darwin'/"; \
		} | sort >"constraints-$$line.txt" && \
		echo "constraints-$$line.txt: $$(wc -l <constraints-$$line.txt) pins" || exit 1; \
	done

# Resolves the project, every extra and every pin together: no pin may lack a wheel, contradict
# another, or be missing.
check-constraints: $(VENV)/.installed-uv ## Show that every pin has wheels for Linux x86-64 and macOS arm64.
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && export LC_ALL=C && for line in $(lines); do \
		file=constraints-$$line.txt && \
		sed -e '/platform == .darwin/d' -e 's/ ;.*//' $$file | sort >"$$work/linux.pins" && \
		sed -e '/platform == .linux/d' -e 's/ ;.*//' $$file | sort >"$$work/macos.pins" && \
		$(resolve) $$file --python-version $$line $(linux) --output-file "$$work/linux-$$line" >/dev/null && \
		$(resolve) $$file --python-version $$line $(macos) --output-file "$$work/macos-$$line" >/dev/null && \
		for system in linux macos; do \
			sort "$$work/$$system-$$line" | diff "$$work/$$system.pins" - && \
			echo "$$file: $$(wc -l <"$$work/$$system.pins") pins resolve to wheels for $$system" || exit 1; \
		done || exit 1; \
	done
