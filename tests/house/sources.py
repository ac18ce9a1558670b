# SPDX-License-Identifier: Apache-2.0
"""The repository as the house rules see it: its files, their syntax trees, and who imports whom."""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = "keyquorum"


@functools.cache
def tracked() -> tuple[str, ...]:
    """Return the paths of all files under version control, and of new ones that are not ignored."""
    done = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    return tuple(path for path in done.stdout.decode().splitlines() if os.path.isfile(os.path.join(ROOT, path)))


def read(path: str) -> str:
    """Return a text file of the repository."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


@functools.cache
def program(path: str) -> ModuleType:
    """Return a program of the repository, loaded and not run."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, os.path.join(ROOT, path))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where NamedTuple looks for its annotations
    spec.loader.exec_module(module)
    return module


@functools.cache
def python_files(*tops: str) -> tuple[str, ...]:
    """Return the Python files below some top directories."""
    return tuple(path for path in tracked() if path.endswith(".py") and path.split("/")[0] in tops)


@functools.cache
def tree(path: str) -> ast.Module:
    """Parse a Python file."""
    return ast.parse(read(path), path)


def module_name(path: str) -> str:
    """Return the name by which a file under agent/ is imported."""
    return path.removeprefix("agent/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def modules() -> dict[str, str]:
    """Return every module of the package with its path."""
    return {module_name(path): path for path in python_files("agent")}


@dataclass(frozen=True)
class Import:
    """One import: who, what, where, and whether it happens only when a function is called."""

    importer: str
    imported: str
    line: int
    in_function: bool


def imports_of(path: str) -> list[Import]:
    """Return what a file imports at run time, function-level imports included; those for type checkers are not."""
    found: list[Import] = []
    _collect(tree(path), module_name(path), found, in_function=False)
    return found


def _collect(node: ast.AST, importer: str, found: list[Import], *, in_function: bool) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                _collect(other, importer, found, in_function=in_function)
        elif isinstance(child, ast.Import):
            found += [Import(importer, alias.name, child.lineno, in_function) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{importer}:{child.lineno}: relative import"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                name = whole if whole in modules() else str(child.module)
                found.append(Import(importer, name, child.lineno, in_function))
        else:
            inside = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            _collect(child, importer, found, in_function=inside)
