# SPDX-License-Identifier: Apache-2.0
"""What is in the package, and that the same sources give the same bytes."""

import gzip
import hashlib
import json
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from keyquorum import __version__, settings
from package.builder import build

ROOT = "usr/lib/keyquorum"


def test_equal_sources_make_an_equal_package(checkout: Path, package: Path, tmp_path: Path) -> None:
    """Another umask, time zone, language, order of hashing and age of the files change nothing."""
    again = tmp_path / "checkout"
    shutil.copytree(checkout, again, copy_function=shutil.copyfile)
    odd = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    second = build(again, tmp_path, umask=0o077, **odd)
    assert hashlib.sha256(second.read_bytes()).digest() == hashlib.sha256(package.read_bytes()).digest()


def test_the_package_is_made_of_this_checkout(checkout: Path, contents: Path) -> None:
    """Beside the test above: what was equal there was not a package of something else."""
    sources = checkout / "agent/keyquorum"
    for path in sources.rglob("*.py"):
        assert (contents / ROOT / "keyquorum" / path.relative_to(sources)).read_bytes() == path.read_bytes(), path


def test_a_version_that_the_changelog_does_not_know_is_refused(checkout: Path, tmp_path: Path) -> None:
    again = tmp_path / "checkout"
    shutil.copytree(checkout, again)
    init = again / "agent/keyquorum/__init__.py"
    init.write_text(init.read_text().replace(__version__, "99.0.0"))
    with pytest.raises(subprocess.CalledProcessError):
        build(again, tmp_path)


def test_lintian_has_nothing_to_say(package: Path) -> None:
    """Overrides have their reasons in packaging/debian/lintian-overrides; one that is not needed any more is found."""
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", "--display-info", str(package)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
    assert "unused-override" not in told.stdout
    # What information says of the wheels' own files is not ours to change.
    ours = [line for line in told.stdout.splitlines() if "/vendor/" not in line]
    assert [line for line in ours if not line.startswith("I: keyquorum: spare-manual-page")] == []


def test_files_belong_to_root_and_nobody_else_may_write(package: Path) -> None:
    listing = subprocess.run(["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True)
    for line in listing.stdout.splitlines():
        mode, owner, *_ = line.split()
        assert owner == "root/root"
        assert mode in {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"}, line


def test_checksums_are_those_of_the_files(contents: Path) -> None:
    listed = {}
    for line in (contents / "DEBIAN/md5sums").read_text().splitlines():
        digest, _, path = line.partition("  ")
        listed[path] = digest
    files = [path for path in contents.rglob("*") if path.is_file() and "DEBIAN" not in path.parts]
    names = {str(path.relative_to(contents)) for path in files} - {"etc/keyquorum/keyquorum.conf"}
    assert listed.keys() == names
    for path in names:
        assert listed[path] == hashlib.md5((contents / path).read_bytes()).hexdigest()


def test_the_default_settings_file_changes_nothing(contents: Path) -> None:
    text = (contents / "etc/keyquorum/keyquorum.conf").read_text()
    assert (contents / "DEBIAN/conffiles").read_text() == "/etc/keyquorum/keyquorum.conf\n"
    assert settings.parse(text) == settings.parse("")
    uncommented = re.sub(r"(?m)^#(?=[a-z_0-9]+ =)", "", text)
    assert uncommented.count(" =") == text.count(" =") == len(settings.TABLE)
    assert settings.parse(uncommented) == settings.parse("")


def test_every_program_that_units_hooks_and_rules_start_is_there(contents: Path) -> None:
    started = set()
    for folder in ("usr/lib/systemd", "usr/share/initramfs-tools", "usr/lib/udev"):
        for path in (contents / folder).rglob("*"):
            if path.is_file():
                started |= set(re.findall(rf"/({ROOT}/[a-z-]+)", path.read_text()))
    assert f"{ROOT}/keyquorum-unlock" in started
    for name in started:
        program = contents / name
        assert program.stat().st_mode & stat.S_IXUSR, name
        (module,) = re.findall(r"(?m)^from (keyquorum\.[a-z_.]+) import main$", program.read_text())
        assert (contents / ROOT / (module.replace(".", "/") + ".py")).is_file(), module


def test_documentation_that_units_name_is_there(contents: Path) -> None:
    for unit in (contents / "usr/lib/systemd/system").iterdir():
        for path in re.findall(r"file:///(\S+)", unit.read_text()):
            assert (contents / path).is_file(), f"{unit.name}: {path}"


def test_links_in_the_installed_pages_lead_somewhere(contents: Path) -> None:
    doc = contents / "usr/share/doc/keyquorum"
    pages = [path for path in doc.rglob("*.md") if "decisions" not in path.parts]
    assert len(pages) > 10
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_changelog_has_the_release(contents: Path) -> None:
    text = gzip.decompress((contents / "usr/share/doc/keyquorum/changelog.gz").read_bytes()).decode()
    assert text.startswith(f"keyquorum ({__version__}) unstable; urgency=medium\n\n  * ")
    parsed = subprocess.run(
        ["dpkg-parsechangelog", "-l", "-", "-S", "Version"], input=text, capture_output=True, text=True, check=True
    )
    assert parsed.stdout.strip() == __version__
    assert parsed.stderr == ""


def test_licences_of_all_that_is_bundled_are_told(contents: Path) -> None:
    """Every wheel, and every library that its list of parts says is linked into it, under a licence of `copyright`."""
    text = (contents / "usr/share/doc/keyquorum/copyright").read_text()
    vendor = contents / ROOT / "vendor"
    tops = {path.name for path in (vendor / "any").iterdir() if not path.name.endswith(".dist-info")}
    for name in tops | {"cp311", "cp313"}:
        assert re.search(rf"(?m)^Files:.* {ROOT}/vendor/(any/)?{name}/\*", text), name
    taken = {"Apache-2.0", "BSD-3-Clause", "MIT"}
    lists = list(vendor.rglob("sboms/*.json"))
    assert lists
    for path in lists:
        for part in json.loads(path.read_text())["components"]:
            for licence in part.get("licenses", []):
                expression = licence.get("expression") or licence["license"]["id"]
                choices = {word.strip("()") for word in re.split(r" (?:OR|AND|WITH) ", expression)}
                assert choices & taken, f"{part['name']}: {expression}"


def test_nothing_compiled_or_forgotten_is_in_the_package(contents: Path) -> None:
    bad = ("*.pyc", "__pycache__", "*~", "*.orig", "*.bak", ".git*")
    assert [path for pattern in bad for path in contents.rglob(pattern)] == []
