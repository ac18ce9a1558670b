# SPDX-License-Identifier: Apache-2.0
"""Builds the Debian package, `keyquorum_VERSION_amd64.deb`: `make deb`, or `python packaging/build_deb.py [DIRECTORY]`.

The package works on Debian 12 and 13. It bundles, from pinned and hashed wheels, what Debian does not have or has too
old (docs/dependencies.md): `cryptography` and `segno` once, `_cffi_backend` for each Python. Equal sources make an
equal package, byte for byte: every time in it is that of the newest release in CHANGELOG.md.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[0:0] = [str(REPOSITORY / "packaging")]

import bash_completion  # noqa: E402 (needs the path above)
import debian_texts  # noqa: E402
import man  # noqa: E402

BUILD = REPOSITORY / "build"
DEBIAN = REPOSITORY / "packaging/debian"
LOCK = REPOSITORY / "packaging/bundled.lock"
ROOT = Path("usr/lib/keyquorum")
DOC = Path("usr/share/doc/keyquorum")
CONFFILE = Path("etc/keyquorum/keyquorum.conf")
PYTHONS = {"cp311": "3.11", "cp313": "3.13"}  # Debian 12, Debian 13
SHARED = ("cryptography", "segno")  # the same files for every Python
PER_PYTHON = ("_cffi_backend",)
BUNDLED = ("cryptography", "segno", "cffi")  # whose licences and lists of parts go along
PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LAUNCHERS = {
    Path("usr/bin/keyquorum"): "keyquorum.cli.main",
    ROOT / "keyquorum-unlock": "keyquorum.unlock.main",
    ROOT / "keyquorum-boot-image": "keyquorum.initramfs.main",
    ROOT / "keyquorum-key": "keyquorum.unlock.key_service",
    ROOT / "keyquorumd": "keyquorum.daemon.main",
}
LEFT_BY_EDITORS = ("*~", "*.orig", "*.rej", ".*.sw?")  # and by patch: not to be run as root in somebody's boot
# Which source goes where: (folder or file of the repository, place in the package, mode of its files).
FILES = (
    ("hooks/initramfs-tools/hooks", "usr/share/initramfs-tools/hooks", 0o755),
    ("hooks/initramfs-tools/scripts", "usr/share/initramfs-tools/scripts", 0o755),
    ("hooks/initramfs-tools/network", "usr/lib/keyquorum/initramfs", 0o755),
    ("systemd/system", "usr/lib/systemd/system", 0o644),
    ("systemd/system-generators", "usr/lib/systemd/system-generators", 0o755),
    ("udev", "usr/lib/udev/rules.d", 0o644),
    ("packaging/examples", DOC / "examples", 0o644),
    ("packaging/debian/copyright", DOC, 0o644),
    ("docs", DOC / "docs", 0o644),
    ("SECURITY.md", DOC, 0o644),
)


def main(output: Path) -> Path:
    """Build the package and return its path."""
    version, time = debian_texts.newest_release()
    output.mkdir(parents=True, exist_ok=True)
    wheels = {tag: _wheels(tag, python) for tag, python in PYTHONS.items()}
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="deb-") as directory:
        tree = Path(directory) / "tree"
        _step("filling the package")
        _program(tree, wheels)
        for source, target, mode in FILES:
            _copy(REPOSITORY / source, tree / target, mode)
        _made_files(tree)
        _control(tree, version)
        _settle(tree, time)
        package = output / f"keyquorum_{version}_amd64.deb"
        finished = Path(directory) / package.name
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(time), "DPKG_DEB_THREADS_MAX": "1"}
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", str(tree), str(finished)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        finished.replace(package)
    _step(f"made {package} ({package.stat().st_size >> 10} KiB)")
    return package


def _step(text: str) -> None:
    print(f"deb: {text}", flush=True)


def _wheels(tag: str, python: str) -> Path:
    """Fetch the wheels of the lock for one Python, once for each lock; pip checks their hashes."""
    folder = BUILD / "wheels" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16] / tag
    if folder.is_dir():
        return folder
    _step(f"downloading the pinned wheels for Python {python}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as directory:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        command += [*(f"--platform={platform}" for platform in PLATFORMS), "-d", f"{directory}/wheels", "-r", str(LOCK)]
        subprocess.run(command, check=True)
        if not folder.is_dir():  # another build may have been faster
            (Path(directory) / "wheels").rename(folder)
    return folder


def _program(tree: Path, wheels: dict[str, Path]) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", *LEFT_BY_EDITORS)
    shutil.copytree(REPOSITORY / "agent/keyquorum", tree / ROOT / "keyquorum", ignore=ignore)
    for tag, folder in wheels.items():
        for wheel in sorted(folder.glob("*.whl")):
            _unpack(wheel, tree / ROOT / "vendor", tag)
    for path, module in LAUNCHERS.items():
        _launcher(tree / path, module)


def _unpack(wheel: Path, vendor: Path, tag: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            top = name.split("/")[0].split(".")[0]
            about = re.match(r"([^/-]+)-[^/]+\.dist-info/(licenses|sboms)/", name)
            if top in SHARED or (about and about[1] in BUNDLED):
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
        if any(path.match(pattern) for pattern in LEFT_BY_EDITORS):
            continue
        place = target / (path.name if source.is_file() else path.relative_to(source))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        place.chmod(mode)


def _made_files(tree: Path) -> None:
    """Write what is made from other sources: manual pages, completion, changelog, default settings."""
    for name, text in man.pages().items():
        _write(tree / f"usr/share/man/man{name[-1]}/{name}.gz", _gzip(text))
    _write(tree / "usr/share/bash-completion/completions/keyquorum", bash_completion.script().encode())
    maintainer = re.search(r"(?m)^Maintainer: (.*)$", (DEBIAN / "control").read_text())
    assert maintainer is not None
    _write(tree / DOC / "changelog.gz", _gzip(debian_texts.changelog("keyquorum", maintainer[1])))
    _write(tree / DOC / "README.md", debian_texts.readme().encode())
    _write(tree / CONFFILE, debian_texts.settings_file().encode())
    shutil.copyfile(DEBIAN / "lintian-overrides", _parent(tree / "usr/share/lintian/overrides/keyquorum"))


def _gzip(text: str) -> bytes:
    return gzip.compress(text.encode(), 9, mtime=0)


def _write(path: Path, content: bytes) -> None:
    _parent(path).write_bytes(content)


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _control(tree: Path, version: str) -> None:
    folder = tree / "DEBIAN"
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    folder.mkdir()
    size = sum((path.stat().st_size + 1023) >> 10 for path in files)
    (folder / "control").write_text((DEBIAN / "control").read_text().format(version=version, size=size))
    (folder / "conffiles").write_text(f"/{CONFFILE}\n")
    sums = [f"{_md5(path)}  {path.relative_to(tree)}\n" for path in files if path != tree / CONFFILE]
    (folder / "md5sums").write_text("".join(sums))
    shutil.copyfile(DEBIAN / "triggers", folder / "triggers")
    enrolled = (DEBIAN / "enrolled").read_text()
    for name in ("postinst", "prerm", "postrm"):
        (folder / name).write_text((DEBIAN / name).read_text().replace("#INCLUDE enrolled\n", enrolled))
        (folder / name).chmod(0o755)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _settle(tree: Path, time: int) -> None:
    """Give every file and directory the same time, whatever the clock and the umask were."""
    for path in [tree, *tree.rglob("*")]:
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (time, time))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else BUILD)
