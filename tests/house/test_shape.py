# SPDX-License-Identifier: Apache-2.0
"""The shape of the code: sizes, names, licence lines, and where everything may be caught (docs/development.md, §1)."""

from __future__ import annotations

import ast
import os

import pytest

from house.sources import modules, python_files, read, tracked, tree

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50
VAGUE_NAMES = frozenset({"util", "utils", "helper", "helpers", "misc", "common", "tools2", "stuff", "lib"})
LICENCE = "SPDX-License-Identifier: Apache-2.0"

# The edges of processes (one watches on after a fault), of the thread that asks one holder and of the one that serves one connection: what nobody
# expected is reported there.
EDGES = frozenset(
    {
        "keyquorum.process",
        "keyquorum.unlock.gather",
        "keyquorum.unlock.linger",
        "keyquorum.custodian.connection",
        "keyquorum.custodian.chores",
    }
)
BROAD = ("Exception", "BaseException")

ALL_PYTHON = python_files("agent", "tests", "packaging")


def functions(path: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return every function of a file, methods and inner ones included."""
    return [node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body, its docstring not counted: words are not complexity."""
    body = function.body
    first = body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if is_docstring and len(body) == 1:
        return 0
    start = body[1] if is_docstring else first
    return (function.end_lineno or 0) - start.lineno + 1


def test_there_is_something_to_look_at() -> None:
    assert len(ALL_PYTHON) > 200


@pytest.mark.parametrize("top", ["agent", "tests", "packaging"])
def test_no_file_is_long(top: str) -> None:
    long = {path: count for path in python_files(top) if (count := read(path).count("\n")) > MOST_LINES_OF_A_FILE}
    assert not long, f"to be split: {long}"


@pytest.mark.parametrize("top", ["agent", "tests", "packaging"])
def test_no_function_is_long(top: str) -> None:
    long = [
        f"{path}:{function.lineno} {function.name}: {length(function)} lines"
        for path in python_files(top)
        for function in functions(path)
        if length(function) > MOST_LINES_OF_A_FUNCTION
    ]
    assert not long, f"to be split: {long}"


def test_names_say_something() -> None:
    vague = [path for path in tracked() for part in path.split("/") if os.path.splitext(part)[0].lower() in VAGUE_NAMES]
    assert not vague, f"a name from the field, please: {vague}"


def test_every_program_text_has_its_licence_line() -> None:
    texts = [
        path
        for path in tracked()
        if path.endswith((".py", ".c", ".sh", ".service", ".socket", ".rules")) or path.startswith("hooks/")
    ]
    without = [
        path for path in texts if read(path) and LICENCE not in "".join(read(path).splitlines(keepends=True)[:3])
    ]
    assert not without, f"no licence line: {without}"


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler takes whatever comes, and keeps it: one that always raises again only tidies up."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(name is None or (isinstance(name, ast.Name) and name.id in BROAD) for name in caught)
    return broad and not isinstance(handler.body[-1], ast.Raise)


def test_everything_is_caught_at_process_edges_only() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for name, path in modules().items()
        if name not in EDGES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    ]
    assert not wrong, f"catch what you can deal with: {wrong}"


def test_no_code_is_commented_out_and_nothing_is_left_for_later() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    left = [
        f"{path}: {mark}"
        for path in python_files("agent", "packaging", "tests")
        for mark in marks
        if f"# {mark}" in read(path)
    ]
    assert not left
