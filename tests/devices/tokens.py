# SPDX-License-Identifier: Apache-2.0
"""Real tokens: SoftHSM2 with keys made by OpenSC's pkcs11-tool, as an administrator makes them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PIN, SO_PIN = "731942", "87654321"


def tool(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


_MAKE_RSA = """
import sys
import pkcs11
from pkcs11 import Attribute, KeyType
serial, pin, bits, *attributes = sys.argv[1:]
token = next(t for t in pkcs11.lib("/usr/lib/softhsm/libsofthsm2.so").get_tokens(token_serial=serial.encode()))
with token.open(rw=True, user_pin=pin) as session:
    private = {Attribute[name]: value == "1" for name, _, value in (a.partition("=") for a in attributes)}
    session.generate_keypair(KeyType.RSA, int(bits), store=True, label="kq", id=b"\\1", private_template=private)
"""


@dataclass
class SoftToken:
    """One token of SoftHSM2."""

    slot: str
    label: str
    serial: str

    def command(self, *arguments: str, pin: str = PIN, check: bool = True) -> str:
        return tool(
            "pkcs11-tool", "--module", SOFTHSM, "--slot", self.slot, "--login", "--pin", pin, *arguments, check=check
        )

    def make_key(self, kind: str, label: str = "kq", key_id: str = "01", *options: str) -> None:
        usage = "--usage-decrypt" if kind.startswith("rsa") else "--usage-derive"
        options = options or ("--sensitive", usage)
        self.command("--keypairgen", "--key-type", kind, "--label", label, "--id", key_id, *options)

    def make_rsa_key_with(self, bits: int, **attributes: bool) -> None:
        """Make a key with attributes that pkcs11-tool does not offer, by another library."""
        rows = [f"{name}={int(value)}" for name, value in attributes.items()]
        tool(sys.executable, "-c", _MAKE_RSA, self.serial, PIN, str(bits), *rows)

    def delete_public(self, key_id: str = "01") -> None:
        self.command("--delete-object", "--type", "pubkey", "--id", key_id)

    def delete_key(self, key_id: str = "01") -> None:
        self.command("--delete-object", "--type", "privkey", "--id", key_id)
        self.delete_public(key_id)


class SoftHsm:
    """A machine's SoftHSM2 with no tokens yet."""

    def __init__(self, directory: Path) -> None:
        (directory / "tokens").mkdir()
        self.configuration = directory / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {directory}/tokens\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(self.configuration)  # read when a module is initialised

    def add_token(self, label: str = "vault") -> SoftToken:
        output = tool("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN)
        slot = re.findall(r"slot (\d+)", output)[-1]
        shown = tool("softhsm2-util", "--show-slots").split(f"Slot {slot}\n")[1]
        serial = re.findall(r"Serial number:\s*(\S+)", shown)[0]
        return SoftToken(slot=slot, label=label, serial=serial)

    def remove_token(self, token: SoftToken) -> None:
        tool("softhsm2-util", "--delete-token", "--serial", token.serial)
