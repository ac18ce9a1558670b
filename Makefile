# SPDX-License-Identifier: Apache-2.0
# Every target installs what it needs (Debian 12 or 13, root, apt and pip reachable) and says what it is doing.

PYTHON ?= /usr/bin/python3
VENV := build/venv
IN_VENV := $(VENV)/bin/python
SHELL_SCRIPTS = .ci/run packaging/install_prerequisites packaging/debian/p* packaging/debian/enrolled systemd/system-generators/* \
	hooks/initramfs-tools/hooks/* hooks/initramfs-tools/scripts/*/* hooks/initramfs-tools/network/*
TESTS = $(IN_VENV) packaging/run_tests.py

.PHONY: help
help:
	@echo "make demo       boot a VM from a root that opens from 2 of 3 fragments, then see it refuse with one"
	@echo "make test       all tests, in this order, with their times:"
	@echo "  make unit       house rules, unit tests, published vectors: a minute or two, no machines, no devices"
	@echo "  make devices    emulated TPMs, software tokens, LUKS2 images"
	@echo "  make package    the Debian package: reproducible, lintian, install and removal on Debian 12 and 13"
	@echo "  make guests     the machines that the next part boots"
	@echo "  make boots      real boots: what opens, what must not, what a power cut leaves"
	@echo "make fuzz       readers of evidence on spoiled input, every byte of genuine evidence: about an hour"
	@echo "make lint       ruff, mypy, shellcheck"
	@echo "make bench      speed and size against cryptsetup, systemd and clevis, as ratios"
	@echo "make deb        build/keyquorum_VERSION_amd64.deb for Debian 12 and 13"
	@echo "make man        build/man, the manual pages"
	@echo "make clean      remove what was built, test machines included"
	@echo "Each one first installs what it needs: Debian 12 or 13, as root, with apt and pip reachable."

.PHONY: test
test: $(VENV)/ready
	@$(TESTS)

.PHONY: unit devices package guests boots
unit devices package guests boots: $(VENV)/ready
	@$(TESTS) $@

# One process; a failure prints the shortest input that breaks something. About an hour.
.PHONY: fuzz
fuzz: $(VENV)/ready
	@$(IN_VENV) -m pytest -q --hypothesis-profile=long tests/fuzz tests/vectors/test_attest_command.py

.PHONY: demo
demo: $(VENV)/ready
	@$(IN_VENV) packaging/demo.py

.PHONY: bench
bench: $(VENV)/ready
	@PYTHONPATH=packaging $(IN_VENV) -m bench

.PHONY: lint
lint: $(VENV)/ready
	@echo "lint: ruff"
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --check --quiet
	@echo "lint: mypy"
	@$(VENV)/bin/mypy --no-error-summary
	@echo "lint: shellcheck"
	@shellcheck -x -e SC1091,SC2013,SC2174,SC2317 $(SHELL_SCRIPTS)
	@echo "lint: nothing to complain about"

.PHONY: deb
deb: $(VENV)/ready
	@$(IN_VENV) packaging/build_deb.py

.PHONY: man
man:
	@$(PYTHON) packaging/man.py build/man

.PHONY: clean
clean:
	@echo "clean: removing build/"
	@rm -rf build

$(VENV)/ready: packaging/requirements.lock packaging/install_prerequisites
	@packaging/install_prerequisites
	@echo "setup: python packages, pinned and hashed, into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(IN_VENV) -m pip install -qq --disable-pip-version-check --require-hashes -r packaging/requirements.lock
	@$(IN_VENV) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
