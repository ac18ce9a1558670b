# SPDX-License-Identifier: Apache-2.0
# Every target installs what it needs (root, apt and pip reachable) and says what it is doing.

PYTHON ?= /usr/bin/python3
VENV := build/venv
IN_VENV := $(VENV)/bin/python

.PHONY: help
help:
	@echo "make demo    boot a VM from a root that opens from 2 of 3 fragments, then see it refuse with one"
	@echo "make test    all tests: unit, vectors, devices, boots, house rules"
	@echo "make unit    only the tests that need neither machines nor devices"
	@echo "make lint    ruff, mypy, shellcheck"
	@echo "make bench   speed and size against cryptsetup, systemd and clevis, as ratios"
	@echo "make deb     build/keyquorum_VERSION_amd64.deb for Debian 12 and 13"
	@echo "make clean   remove what was built"

.PHONY: deb
deb: $(VENV)/ready
	@$(IN_VENV) packaging/build_deb.py

$(VENV)/ready: packaging/requirements.lock packaging/install_prerequisites
	@packaging/install_prerequisites
	@echo "setup: python packages, pinned and hashed, into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(IN_VENV) -m pip install --quiet --require-hashes -r packaging/requirements.lock
	@$(IN_VENV) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

PYTEST := $(IN_VENV) -m pytest -q

.PHONY: lint unit devices boots test demo clean
lint: $(VENV)/ready
	@echo "lint: ruff, mypy, shellcheck"
	@$(IN_VENV) -m ruff check agent tests packaging
	@$(IN_VENV) -m ruff format --check --quiet agent tests packaging
	@$(IN_VENV) -m mypy
	@shellcheck -x -e SC1091,SC2013,SC2174,SC2317 hooks/initramfs-tools/hooks/* hooks/initramfs-tools/scripts/*/* systemd/system-generators/* packaging/debian/p*

unit: $(VENV)/ready
	@echo "unit: pure tests, published vectors"
	@$(PYTEST) tests/unit tests/vectors

devices: $(VENV)/ready
	@echo "devices: swtpm, SoftHSM2, libcryptsetup on images"
	@$(PYTEST) tests/devices

boots: $(VENV)/ready
	@echo "boots: real kernels in virtual machines"
	@$(PYTEST) tests/guests tests/boots

test: unit devices boots

demo: $(VENV)/ready
	@$(IN_VENV) packaging/demo.py

clean:
	@rm -rf build
