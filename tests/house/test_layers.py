# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, and who may start programs (DESIGN, "Layout")."""

from __future__ import annotations

import ast

import pytest

from house.sources import imports_of, modules, python_files, tree

# Each layer may import itself and those above it in this list. Modules of one file are named, folders too.
LAYERS = (
    (
        "errors",
        "record",
        "secret",
        "native",
        "mailbox",
        "deadline",
        "settings",
        "speech",
        "process",
        "model",
        "sharing",
    ),
    ("envelope", "evidence"),
    ("holders", "linux", "tpm2"),
    ("enroll", "unlock", "initramfs", "rotate"),
    ("daemon", "custodian", "hub", "audit"),
    ("cli",),
)
RUNNER = "keyquorum.linux.run"
FORKER = "keyquorum.unlock.standby"
STARTERS = (
    *(f"os.{name}" for name in ("system", "popen", "posix_spawn", "posix_spawnp", "startfile")),
    *(f"os.{how}{what}" for how in ("exec", "spawn") for what in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
    "pty.spawn",
)
FORKS = ("os.fork", "os.forkpty", "pty.fork", "_posixsubprocess.fork_exec")
PROGRAM_MODULES = ("subprocess", "multiprocessing", "pty", "popen2", "commands", "_posixsubprocess", "asyncio")
C_FUNCTIONS = ("system", "popen", "fork", "vfork", "clone", "clone3", "execve", "execv", "execvp", "posix_spawn")


def layer(module: str) -> int:
    """Return the number of a module's layer."""
    part = module.split(".")[1]
    found = [number for number, parts in enumerate(LAYERS) if part in parts]
    assert found, f"{module} belongs to no layer: name it in LAYERS"
    return found[0]


def named(node: ast.AST) -> str:
    """Return the dotted name of an expression, "" if it has none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = named(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


PACKAGE_MODULES = sorted(name for name in modules() if name.count(".") > 0)


def test_the_package_is_there() -> None:
    assert len(PACKAGE_MODULES) > 80
    assert {RUNNER, FORKER} <= set(PACKAGE_MODULES)


@pytest.mark.parametrize("module", PACKAGE_MODULES)
def test_imports_go_downwards_only(module: str) -> None:
    """Also those in functions: a late import is an import."""
    wrong = [
        f"line {found.line}: {found.imported}"
        for found in imports_of(modules()[module])
        if found.imported.startswith("keyquorum.") and layer(found.imported) > layer(module)
    ]
    assert not wrong, f"{module} imports from a layer above its own: {wrong}"


def test_every_import_of_ours_exists() -> None:
    for module in PACKAGE_MODULES:
        for found in imports_of(modules()[module]):
            if found.imported.split(".")[0] == "keyquorum":
                assert found.imported in modules(), f"{module}:{found.line} imports {found.imported}"


def test_modules_named_in_texts_exist() -> None:
    """Modules that are loaded by name: kinds of holders, parts of a boot image, verbs."""
    for module in PACKAGE_MODULES:
        for node in ast.walk(tree(modules()[module])):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words = node.value.split(".")
                if words[0] == "keyquorum" and len(words) > 2 and all(word.isidentifier() for word in words):
                    assert node.value in modules(), f"{module}:{node.lineno} names {node.value}"


@pytest.mark.parametrize("module", PACKAGE_MODULES)
def test_one_door_for_programs(module: str) -> None:
    wrong = []
    for node in ast.walk(tree(modules()[module])):
        name = named(node) if isinstance(node, (ast.Attribute, ast.Name)) else ""
        if name in STARTERS and module != RUNNER:
            wrong.append(f"line {getattr(node, 'lineno', 0)}: {name}")
        if name in FORKS and module != FORKER:
            wrong.append(f"line {getattr(node, 'lineno', 0)}: {name}")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in C_FUNCTIONS:
            wrong.append(f"line {node.lineno}: the C function {node.value}")
    wrong += [
        f"line {found.line}: import {found.imported}"
        for found in imports_of(modules()[module])
        if found.imported.split(".")[0] in PROGRAM_MODULES
    ]
    assert not wrong, f"only {RUNNER} starts programs and only {FORKER} forks; {module} has {wrong}"


def test_the_one_door_is_used() -> None:
    users = {
        found.importer
        for path in python_files("agent")
        for found in imports_of(path)
        if found.imported == RUNNER and found.importer != RUNNER
    }
    assert len(users) >= 3


def test_a_rule_that_cannot_fail_would_be_worth_nothing() -> None:
    assert layer("keyquorum.cli.main") > layer("keyquorum.unlock.main") > layer("keyquorum.model.tree")
    assert named(ast.parse("os.execvp", mode="eval").body) in STARTERS
    lazy = [found for found in imports_of(modules()["keyquorum.cli.main"]) if found.in_function]
    assert any(found.imported == "keyquorum.unlock.main" for found in lazy)
