# SPDX-License-Identifier: Apache-2.0
"""The manual pages: made, without a complaint of the formatter, complete, and reachable from units and each other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keyquorum.cli.main import VERBS
from keyquorum.holders import KINDS
from keyquorum.settings import TABLE
from keyquorum.unlock import arguments

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "packaging/man"
NAMES = sorted(path.name.removesuffix(".md") for path in SOURCES.glob("*.md"))
OTHERS = {  # pages of Debian that ours may refer to
    "cryptsetup(8)",
    "crypttab(5)",
    "initramfs-tools(7)",
    "journalctl(1)",
    "sd_notify(3)",
    "systemd-cryptsetup@.service(8)",
    "systemd.exec(5)",
    "systemd.generator(7)",
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, made by a bare interpreter: a package builder needs no library of ours."""
    directory = tmp_path_factory.mktemp("man")
    command = [sys.executable, "-I", "-S", str(REPOSITORY / "packaging/man.py"), str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


def shown(page: Path, columns: int = 80) -> tuple[str, str]:
    """A page as text, and what the formatter complained of."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": str(columns)}
    lint = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)]
    complaints = subprocess.run(lint, env=environment, capture_output=True, text=True, check=True).stderr
    text = subprocess.run(["man", "-l", str(page)], env=environment, capture_output=True, text=True, check=True).stdout
    return re.sub(".\b", "", text), complaints


def path_of(pages: Path, name: str) -> Path:
    """Where a page is."""
    return pages / f"man{name[-1]}" / name


@pytest.mark.parametrize("columns", [80, 120])  # lintian takes 120
@pytest.mark.parametrize("name", NAMES)
def test_the_formatter_has_nothing_to_complain_of(pages: Path, name: str, columns: int) -> None:
    assert shown(path_of(pages, name), columns)[1] == ""


def test_the_formatter_would_complain(tmp_path: Path) -> None:
    page = tmp_path / "bad.8"
    page.write_text("'\\\" t\n.TH BAD 8\n.TS\ntab(;);\nl l.\nT{\n" + 200 * "x" + "\nT};b\n.TE\n")
    assert shown(page)[1] != ""


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_the_usual_sections_and_no_markdown(pages: Path, name: str) -> None:
    text = shown(path_of(pages, name))[0]
    headings = re.findall(r"(?m)^([A-Z§].*)$", text)[1:]
    assert headings[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert "SEE ALSO" in headings
    assert not re.search(r"`|\*\*|\]\(|\{\{|^\|", text.replace("# how many of `of` open", ""), re.MULTILINE)


def test_the_main_page_has_every_verb_and_every_option(pages: Path) -> None:
    text = shown(path_of(pages, "keyquorum.8"))[0]
    for verb in VERBS:
        assert f"keyquorum {verb}" in text
    for option in set(re.findall(r"--[a-z][a-z-]+", (REPOSITORY / "docs/cli.md").read_text(encoding="utf-8"))):
        assert option in text or option in {"--boot", "--record", "--help"}, option


def test_the_page_of_the_boot_program_has_every_option(pages: Path) -> None:
    text = shown(path_of(pages, "keyquorum-unlock.8"))[0]
    for option in (*arguments._FLAGS, *arguments._WITH_VALUE):
        assert f"{option}" in text


def test_the_page_of_settings_has_every_setting_and_its_default(pages: Path) -> None:
    text = " ".join(shown(path_of(pages, "keyquorum.conf.5"))[0].split())
    for row in TABLE:
        assert f" {row.name} {row.help[0].upper()}" in text
        assert f"Default: {row.default or 'empty'}." in text


def test_the_page_of_policies_has_every_kind_of_holder(pages: Path) -> None:
    text = shown(path_of(pages, "keyquorum-policy.5"))[0]
    for kind in KINDS:
        assert re.search(rf"(?m)^       {kind}\b", text), kind


@pytest.mark.parametrize("name", NAMES)
def test_references_lead_to_pages_that_exist(pages: Path, name: str) -> None:
    ours = {f"{page[:-2]}({page[-1]})" for page in NAMES}
    source = path_of(pages, name).read_text(encoding="utf-8").replace("\\-", "-")
    references = set(re.findall(r"\\fB([\w@.-]+\([1-8]\))\\fR", source))
    assert references
    assert references <= ours | OTHERS


@pytest.mark.parametrize("unit", sorted((REPOSITORY / "systemd/system").iterdir()), ids=lambda path: path.name)
def test_units_refer_to_pages_that_exist(unit: Path) -> None:
    ours = {f"{page[:-2]}({page[-1]})" for page in NAMES}
    references = re.findall(r"man:([^ \n]+)", unit.read_text(encoding="utf-8"))
    assert references
    assert set(references) <= ours | OTHERS


def test_backslashes_dots_and_hyphens_survive(tmp_path: Path) -> None:
    """What a person copies from a page must be what works."""
    source = tmp_path / "x.8.md"
    source.write_text(
        "## NAME\n\nx - y\n\n## T\n\nthe name `\\0A-B` and --long\n.dot first\n\n```\n.TH\n'x\na\\nb --c\n```\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'packaging')!r}); import roff; from pathlib import Path;"
    )
    program += (
        "print(roff.page(Path(sys.argv[1]).read_text(), roff.Heading('x', '8', '2026-01-01', 'x 1', 'm')), end='')"
    )
    command = [sys.executable, "-c", program, str(source)]
    page = tmp_path / "x.8"
    page.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    text, complaints = shown(page)
    assert complaints == ""
    assert "the name \\0A-B and --long .dot first" in text
    assert [line.strip() for line in text.splitlines() if line.startswith(" " * 11)] == [".TH", "'x", "a\\nb --c"]
    assert "\\-\\-c" in page.read_text()
