# SPDX-License-Identifier: Apache-2.0
"""The pages hold together: links and citations lead somewhere, and what the README shows is what the program says."""

import os
import re

import pytest

from house.sources import ROOT, read, tracked
from keyquorum import __version__
from keyquorum.model import report

PAGES = tuple(path for path in tracked() if path.endswith(".md") and not path.startswith("packaging/man/"))
TEXTS = tuple(path for path in tracked() if not path.endswith((".json", ".lock", ".txt")))
_LINK = re.compile(r"\]\((?P<page>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
_FENCED = re.compile(r"(?ms)^```.*?^```$")
_MODULE = re.compile(r"`(?P<path>[a-z0-9_/.-]*[a-z0-9_]\.(?:py|c|rules|service))(?:::\w+)?`")
_CITED = re.compile(r"\bdocs/(?P<page>[a-z0-9/-]+\.md)(?: §(?P<section>[0-9]+))?")


def headings(page: str) -> list[str]:
    """The headings of a page, without their signs."""
    return re.findall(r"(?m)^#+ (.*)$", _FENCED.sub("", read(page)))


def anchor(heading: str) -> str:
    """The anchor that a forge gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in _LINK.finditer(_FENCED.sub("", read(page))):
        if link["page"].startswith(("http:", "https:", "mailto:")):
            continue
        target = os.path.normpath(os.path.join(os.path.dirname(page), link["page"])) if link["page"] else page
        assert os.path.exists(os.path.join(ROOT, target)), f"{page}: {link[0]}"
        if link["anchor"]:
            assert link["anchor"] in map(anchor, headings(target)), f"{page}: {link[0]}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_pages_speak_of_exist(page: str) -> None:
    for found in _MODULE.finditer(read(page)):
        assert any(f"/{path}".endswith(f"/{found['path'].removeprefix('/')}") for path in tracked()), (
            f"{page}: {found['path']}"
        )


def test_every_page_of_docs_is_in_the_index() -> None:
    index = {link["page"] for link in _LINK.finditer(read("docs/README.md"))}
    pages = {path.removeprefix("docs/") for path in PAGES if re.fullmatch(r"docs/[a-z-]+\.md", path)}
    assert pages - index == set()


@pytest.mark.parametrize("path", [path for path in TEXTS if _CITED.search(read(path))])
def test_pages_and_sections_that_are_cited_exist(path: str) -> None:
    for cited in _CITED.finditer(read(path)):
        page = f"docs/{cited['page']}"
        assert page in PAGES, f"{path} cites {cited[0]}"
        if cited["section"]:
            numbers = [heading.split(" ")[0].strip(".§") for heading in headings(page)]
            assert cited["section"] in numbers, f"{path} cites {cited[0]}"


def test_decisions_have_numbers_of_their_own() -> None:
    numbers = [os.path.basename(path)[:4] for path in PAGES if path.startswith("docs/decisions/")]
    assert numbers
    assert all(number.isdecimal() for number in numbers)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("path", TEXTS)
def test_no_file_names_a_developers_machine(path: str) -> None:
    own = re.compile(r"/(?:work|home/[a-z]+)/(?!\.\.\.)[a-z.]")
    assert own.findall(read(path)) == []


def test_the_readme_names_this_version_and_package() -> None:
    readme = read("README.md")
    assert set(re.findall(r"keyquorum_([0-9.]+)_amd64\.deb", readme)) == {__version__}
    assert f"keyquorum {'.'.join(__version__.split('.')[:2])} |" in readme


def test_the_console_that_the_readme_shows_is_the_programs() -> None:
    """The words of each verdict; their making is tested with `speech`."""
    (shown,) = re.findall(r"(?ms)^```\n(keyquorum: .*?)^```$", read("README.md"))
    *holders, outcome = shown.splitlines()
    verdicts = {report.VALID: None, report.UNAVAILABLE: r"no disk with id [0-9a-f-]{36} is attached, but [0-9a-f-]{36}"}
    for line in holders:
        found = re.fullmatch(r"keyquorum:   ([a-z-]+) \((disk|tpm)\): ([a-z ]+) in 0\.\d\d s(?:: (.*))?", line)
        assert found, line
        expected = verdicts[found[3]]
        assert re.fullmatch(expected, found[4]) if expected else found[4] is None, line
    assert re.fullmatch(r"keyquorum: \w+ is open, from 2 of 3 fragments", outcome)
