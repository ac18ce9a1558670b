# SPDX-License-Identifier: Apache-2.0
"""Builds the Debian package: `python packaging/build_deb.py` (or `make deb`) writes build/keyquorum_VERSION_amd64.deb.

The package works on Debian 12 and 13. It bundles, from pinned and hashed wheels, what Debian does not have or has too
old (docs/dependencies.md): `cryptography` and `segno` once, `_cffi_backend` for each Python.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build"
ROOT = Path("usr/lib/keyquorum")
PYTHONS = {"cp311": "3.11", "cp313": "3.13"}  # Debian 12, Debian 13
SHARED = ("cryptography", "segno")  # the same files for every Python
PER_PYTHON = ("_cffi_backend",)
PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LAUNCHERS = {
    Path("usr/bin/keyquorum"): "keyquorum.cli.main",
    ROOT / "keyquorum-unlock": "keyquorum.unlock.main",
    ROOT / "keyquorum-boot-image": "keyquorum.initramfs.main",
    ROOT / "keyquorumd": "keyquorum.daemon.main",
}
_EPOCH = "1793318400"  # newer files get this time, so that equal sources make an equal package
# Which source goes where: (folder or file of the repository, place in the package, mode of its files).
FILES = (
    ("hooks/initramfs-tools/hooks", "usr/share/initramfs-tools/hooks", 0o755),
    ("hooks/initramfs-tools/scripts", "usr/share/initramfs-tools/scripts", 0o755),
    ("systemd/system", "usr/lib/systemd/system", 0o644),
    ("systemd/system-generators", "usr/lib/systemd/system-generators", 0o755),
    ("udev", "usr/lib/udev/rules.d", 0o644),
    ("packaging/examples", "usr/share/doc/keyquorum/examples", 0o644),
    ("packaging/completion/bash", "usr/share/bash-completion/completions", 0o644),
    ("docs", "usr/share/doc/keyquorum", 0o644),
    ("README.md", "usr/share/doc/keyquorum", 0o644),
    ("SECURITY.md", "usr/share/doc/keyquorum", 0o644),
    ("CHANGELOG.md", "usr/share/doc/keyquorum", 0o644),
)


def main() -> None:
    """Build the package and print its path."""
    version = _version()
    tree = BUILD / "deb"
    shutil.rmtree(tree, ignore_errors=True)
    _step("downloading the pinned wheels")
    wheels = {tag: _download(tag, python) for tag, python in PYTHONS.items()}
    _step("filling the package")
    _copy_package(tree)
    for tag, folder in wheels.items():
        _unpack(folder, tree / ROOT / "vendor", tag)
    for path, module in LAUNCHERS.items():
        _launcher(tree / path, module)
    for source, target, mode in FILES:
        _copy(REPOSITORY / source, tree / target, mode)
    _control(tree, version)
    package = BUILD / f"keyquorum_{version}_amd64.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    _step(f"made {package.relative_to(REPOSITORY)} ({package.stat().st_size >> 10} KiB)")


def _version() -> str:
    found = re.search(r'__version__ = "([^"]+)"', (REPOSITORY / "agent/keyquorum/__init__.py").read_text())
    assert found is not None
    return found[1]


def _step(text: str) -> None:
    print(f"deb: {text}", flush=True)


def _download(tag: str, python: str) -> Path:
    """Fetch the wheels of the lock for one Python; pip checks their hashes."""
    folder = BUILD / "wheels" / tag
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    command += ["--implementation=cp", f"--python-version={python}", *(f"--platform={p}" for p in PLATFORMS)]
    subprocess.run([*command, "-d", folder, "-r", REPOSITORY / "packaging/bundled.lock"], check=True)
    return folder


def _copy_package(tree: Path) -> None:
    shutil.copytree(
        REPOSITORY / "agent/keyquorum", tree / ROOT / "keyquorum", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )


def _unpack(wheels: Path, vendor: Path, tag: str) -> None:
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                top = name.split("/")[0].split(".")[0]
                is_licence = ".dist-info/licenses/" in name
                if top in SHARED or (is_licence and tag == next(iter(PYTHONS))):
                    archive.extract(name, vendor / "any")
                elif top in PER_PYTHON:
                    archive.extract(name, vendor / tag)


def _launcher(path: Path, module: str) -> None:
    """Write a program that starts Python without site-packages of users and leaves without waiting for threads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#!/usr/bin/python3 -IS\n"
        "import sys\n"
        f'root = "/{ROOT}"\n'
        'tag = f"cp{sys.version_info.major}{sys.version_info.minor}"\n'
        'sys.path[0:0] = [root, f"{root}/vendor/any", f"{root}/vendor/{tag}"]\n'
        'sys.path.append("/usr/lib/python3/dist-packages")\n'
        "from keyquorum.process import leave\n"
        f"from {module} import main\n"
        "leave(main())\n"
    )
    path.chmod(0o755)


def _copy(source: Path, target: Path, mode: int) -> None:
    if not source.exists():
        raise SystemExit(f"deb: {source.relative_to(REPOSITORY)} is missing")
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    for path in files:
        place = target / (path.name if source.is_file() else path.relative_to(source))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        place.chmod(mode)


def _control(tree: Path, version: str) -> None:
    folder = tree / "DEBIAN"
    folder.mkdir()
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) >> 10
    control = (REPOSITORY / "packaging/debian/control").read_text()
    (folder / "control").write_text(control.format(version=version, size=size))
    for name in ("postinst", "prerm", "postrm", "triggers", "conffiles"):
        script = REPOSITORY / "packaging/debian" / name
        if script.exists():
            shutil.copyfile(script, folder / name)
            (folder / name).chmod(0o644 if name in {"triggers", "conffiles"} else 0o755)
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


if __name__ == "__main__":
    os.umask(0o022)
    os.environ.setdefault("SOURCE_DATE_EPOCH", _EPOCH)
    main()
