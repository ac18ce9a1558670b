# SPDX-License-Identifier: Apache-2.0
"""Rules and mathematics read no file, clock, randomness or environment: whoever calls them hands it in (I9)."""

from __future__ import annotations

import ast

import pytest

from house.sources import imports_of, modules, tree

CORES = (
    "keyquorum.model.",
    "keyquorum.sharing.",
    "keyquorum.evidence.",
    "keyquorum.daemon.waiting",
    *(
        f"keyquorum.custodian.{name}"
        for name in (
            *("merkle", "note", "checkpoint", "entry", "receipt", "log_check"),
            *("verdict", "approval", "policy_format", "release_policy", "appraisal"),
        )
    ),
    "keyquorum.errors",
)
WORLD = {
    *("os", "sys", "io", "time", "random", "secrets", "select", "fcntl", "mmap", "signal", "platform", "getpass"),
    *("_socket", "socket", "ssl", "http", "urllib", "subprocess", "tempfile", "shutil", "glob", "pathlib", "logging"),
    *("threading", "_thread", "uuid", "locale"),
}
CALLS = {"open", "input", "print", "exec", "eval", "__import__"}
METHODS = {"now", "today", "utcnow", "random_secret", "urandom"}


def pure() -> list[str]:
    return sorted(name for name in modules() if name.startswith(CORES) or f"{name}." in CORES)


def called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def test_there_are_cores() -> None:
    assert len(pure()) > 30
    assert "keyquorum.sharing.shamir" in pure()


@pytest.mark.parametrize("module", pure())
def test_a_core_has_no_way_to_the_world(module: str) -> None:
    path = modules()[module]
    imported = {found.imported.partition(".")[0] for found in imports_of(path)}
    assert not imported & WORLD
    names = [called(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert not set(names) & (CALLS | METHODS)
    assert not [node for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute) and node.attr == "environ"]
