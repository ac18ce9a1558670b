# SPDX-License-Identifier: Apache-2.0
"""The package, built once from a copy of this checkout, so that nobody who edits files meanwhile changes it."""

import shutil
from pathlib import Path

import pytest

from package.builder import REPOSITORY, SOURCES, build, unpack


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is made of."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, copy / name)
    wheels = REPOSITORY / "build/wheels"
    if wheels.is_dir():
        shutil.copytree(wheels, copy / "build/wheels")
    return copy


@pytest.fixture(scope="session")
def package(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's file."""
    return build(checkout, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def contents(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package unpacked, its control files in DEBIAN."""
    directory = tmp_path_factory.mktemp("contents") / "tree"
    unpack(package, directory)
    return directory
