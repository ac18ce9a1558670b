# SPDX-License-Identifier: Apache-2.0
"""Policies written short, for the tests about what they mean."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from keyquorum.model import policy

if TYPE_CHECKING:
    from keyquorum.model.policy import Policy

KINDS = {
    "tpm": 'kind = "tpm"\npcrs = [7]',
    "bare": 'kind = "tpm"',
    "pin": 'kind = "tpm"\npin = true',
    "late": 'kind = "tpm"\npcrs = [7, 15]',
    "sha1": 'kind = "tpm"\npcrs = [7]\nbank = "sha1"',
    "facts": 'kind = "tpm"\nfacts = ["cpu-model"]',
    "signed": 'kind = "tpm"\npublic_key = "/k.pem"\nsigned_pcrs = [11]',
    "disk": 'kind = "disk"\ndevice = "/dev/{name}"',
    "hsm": 'kind = "pkcs11"\nuri = "pkcs11:token={name};object=key"',
    "phrase": 'kind = "passphrase"',
    "sheet": 'kind = "sheet"',
    "net": 'kind = "custodian"\nid = "{name}.example"\nrelease = "/r"\nreference = "/v"',
}


def short(threshold: int, of: str, *more: str, **groups: tuple[int, str]) -> Policy:
    """Read a policy from few words.

    `of` is a list of names; a name is a group's, or begins with a kind of KINDS ("disk-a", "phrase-bob"), perhaps
    followed by labels ("disk-a:country=DE:site=x"). `more` is further text of the file.
    """
    lines = ["version = 1", f"threshold = {threshold}"]
    tables: dict[str, str] = {}

    def members(words: str) -> str:
        names = []
        for word in words.split():
            name, *labels = word.split(":")
            if name not in groups:
                body = KINDS[name.partition("-")[0]].format(name=name)
                pairs = ", ".join('{} = "{}"'.format(*label.split("=")) for label in labels)
                tables.setdefault(name, f"[holder.{name}]\n{body}\n" + (f"labels = {{ {pairs} }}" if labels else ""))
            names.append(f'"{name}"')
        return ", ".join(names)

    lines.append(f"of = [{members(of)}]")
    for name, (needed, inner) in groups.items():
        lines += [f"[group.{name}]", f"threshold = {needed}", f"of = [{members(inner)}]"]
    return policy.parse(tomllib.loads("\n".join([*lines, *tables.values(), *more])), "policy.toml")
