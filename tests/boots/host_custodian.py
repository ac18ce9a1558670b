# SPDX-License-Identifier: Apache-2.0
"""A custodian on the host that a guest reaches: its operator's commands, its process, and a guest's enrolment at it."""

import hashlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guests.machine import BOOT_SECONDS, Machine
from guests.places import REPOSITORY
from guests.tools import companion, run
from keyquorum.linux import owner_key

MACHINE = "db-9"
ASKED = "asked"  # a file beside an enclave's settings, there once it was asked for evidence
BY_ANNA = '{{ needed = 1, of = {{ anna = "{}" }}, within = "1h" }}'
BY_NOBODY = '"any"'
_PCRS = (0, 1, 7)  # SeaBIOS measures the SMBIOS tables into PCR 1
_YEAR = 365 * 86400
_UNUSED = "127.0.0.1:1"  # where a custodian that is not told otherwise would listen
_PATIENCE = 60.0
_ANNA = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the operator anna").digest())
_HOLDER = """\
[holder.{0}]
kind = "{1}"
id = "{0}.custodian.example"
release = "/root/{0}.toml"
reference = "/root/reference.json"
"""


@dataclass(frozen=True)
class Custodian:
    """A custodian's directory on the host, and the port that is kept for it."""

    name: str
    directory: str
    port: int
    proven: bool

    def found(self) -> None:
        """Make it."""
        words = ("--origin", f"{self.name}.custodian.example", "--listen", _UNUSED, "--monitor", "none")
        self.operator("init", *words, "--workers", "1", "--unsafe-without-witnesses")

    def operator(self, *words: str) -> dict[str, object]:
        """Run a command of its operator; give the object that it prints."""
        command = [sys.executable, "-m", "keyquorum.cli.main", "custodian", *words, "--directory", self.directory]
        found: dict[str, object] = json.loads(run([*command, "--json"]))
        return found

    def approve(self, number: int) -> None:
        """Let a request through, as anna."""
        key = os.path.join(self.directory, "..", "anna.key")
        if not os.path.exists(key):
            with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(owner_key.pem(_ANNA))
        self.operator("approve", str(number), "--as", "anna", "--key", key)

    def log(self) -> list[dict[str, object]]:
        """The newest entries of its log."""
        entries = self.operator("log")["entries"]
        assert isinstance(entries, list)
        return entries

    @contextmanager
    def serving(self, fault: str = "") -> Iterator[None]:
        """Answer machines for the length of a block; an enclave's evidence may have one of `software_enclave.FAULTS`."""
        settings = os.path.join(self.directory, "custodian.toml")
        with open(settings, encoding="utf-8") as file:
            text = file.read()
        with open(settings, "w", encoding="utf-8") as file:
            file.write(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self.port}", text))
        program: tuple[str, ...] = ("keyquorum.cli.main", "custodian", "serve", "--directory", self.directory)
        if self.proven:
            program = ("boots.software_enclave", self.directory, str(self.port), fault)
        path = f"PYTHONPATH={os.path.join(REPOSITORY, 'agent')}:{os.path.join(REPOSITORY, 'tests')}"
        with companion(["env", path, sys.executable, "-m", *program], log=f"{self.directory}.log") as process:
            end = time.monotonic() + _PATIENCE
            while not self._listens():
                assert process.exit_code is None, f"{self.name} ended: {_text(process.log)}"
                assert time.monotonic() < end, f"{self.name} does not listen: {_text(process.log)}"
                time.sleep(0.1)
            yield

    def break_one_connection(self) -> None:
        """Be somebody who listens in the custodian's place, wait for the machine to come, and hang up."""
        with socket.create_server(("127.0.0.1", self.port)) as server:
            server.settimeout(BOOT_SECONDS)
            server.accept()[0].close()

    def wait_for_entry(self, words: str) -> None:
        """Wait until the log has an entry whose reason has these words."""
        end = time.monotonic() + BOOT_SECONDS
        while not any(words in str(entry["reason"]) for entry in self.log()):
            assert time.monotonic() < end, f"{self.name}'s log has no {words!r}: {self.log()}"
            time.sleep(1)

    def wait_until_alone(self) -> None:
        """Wait until the machine that asked has its answer and hung up."""
        end = time.monotonic() + BOOT_SECONDS
        while self._is_connected():
            assert time.monotonic() < end, f"{self.name} is asked without end"
            time.sleep(0.5)

    def wait_until_judged(self) -> None:
        """Wait until a machine had evidence of this enclave and hung up, as it does when it has judged it."""
        end = time.monotonic() + BOOT_SECONDS
        while not os.path.exists(os.path.join(self.directory, ASKED)):
            assert time.monotonic() < end, f"{self.name} was not asked"
            time.sleep(0.5)
        self.wait_until_alone()

    def _is_connected(self) -> bool:
        """Look for a relay of the test machine's network (`guests.relay`) to this custodian's port."""
        words = f"relay.py\0{self.port}\0".encode()
        return any(words in _command_line(number) for number in os.listdir("/proc") if number.isdecimal())

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def new(name: str, directory: str, *, proven: bool = False) -> Custodian:
    """The custodian of this name below a directory, made there or not yet, with a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return Custodian(name, os.path.join(directory, name), port, proven)


def holder(name: str, kind: str = "custodian") -> str:
    """A policy's lines about it."""
    return _HOLDER.format(name, kind)


def enrol_machine(vm: Machine, custodian: Custodian, address: str) -> None:
    """What operator and administrator do: the endorsement key goes one way, the invitation the other."""
    key = json.loads(vm.run("keyquorum machine show --json", timeout=BOOT_SECONDS).output)["endorsement_key"]
    invitation = custodian.operator("enroll-machine", MACHINE, "--ek", key)
    vm.put("/root/invitation.json", json.dumps(invitation).encode(), mode=0o600)
    vm.run(f"keyquorum machine enroll --invitation /root/invitation.json --address {address}", timeout=BOOT_SECONDS)


def write_reference(vm: Machine) -> None:
    """Reference values that are right as the machine is now."""
    said = vm.run(f"tpm2_pcrread sha256:{','.join(map(str, _PCRS))}").text
    values = {number: value.lower() for number, value in re.findall(r"(\d+) *: 0x([0-9A-Fa-f]{64})", said)}
    now = int(time.time())
    times = {"issued": now - 3600, "expires": now + _YEAR}
    rules = {"pcrs": {str(pcr): [values[str(pcr)]] for pcr in _PCRS}, "log": None, "firmware": None, "clock": "any"}
    reference = {"version": 1, "name": "root", "serial": 1, **times, "bank": "sha256", **rules}
    vm.put("/root/reference.json", json.dumps(reference).encode())


def write_release(vm: Machine, name: str, volumes: tuple[str, ...], approvals: str = BY_NOBODY) -> None:
    """What the owner allows a custodian: this machine, when trusted, for these volumes."""
    public = _ANNA.public_key().public_bytes_raw().hex()
    free = "".join(f'{rule} = "any"\n' for rule in ("regions", "countries", "operators", "hours", "limits"))
    head = 'version = 1\nname = "root"\nserial = 1\nissued = 2020-01-01\nexpires = 2099-01-01\n'
    whom = f'volumes = {json.dumps(volumes)}\nmachines = ["{MACHINE}"]\nattestation = ["trusted"]\n'
    text = f"{head}{whom}{free}approvals = {approvals.format(public)}\n"
    vm.put(f"/root/{name}.toml", text.encode())


def _command_line(number: str) -> bytes:
    try:
        with open(f"/proc/{number}/cmdline", "rb") as file:
            return file.read()
    except OSError:  # it has ended
        return b""


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
