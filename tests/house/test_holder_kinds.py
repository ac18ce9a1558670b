# SPDX-License-Identifier: Apache-2.0
"""Every kind of holder has all its rows: a kind that is known in one place only would fail at a boot (docs/holders.md §5)."""

from pathlib import Path

import pytest

from keyquorum.holders import KINDS
from keyquorum.initramfs import modules
from keyquorum.model import holder_options, token_size

REPOSITORY = Path(__file__).resolve().parents[2]
TABLES = {
    "holder_options.READERS": set(holder_options.READERS),
    "token_size._WHERE": set(token_size._WHERE),
    "initramfs.modules._FOR_KIND": set(modules._FOR_KIND),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_every_kind_and_no_other(table: str) -> None:
    assert TABLES[table] == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_file_and_its_rows_in_the_documentation(kind: str) -> None:
    assert KINDS[kind] == f"keyquorum.holders.{kind}"
    assert (REPOSITORY / f"agent/keyquorum/holders/{kind}.py").is_file()
    for page in ("docs/holders.md", "docs/policy.md"):
        assert f"\n| `{kind}` |" in (REPOSITORY / page).read_text(encoding="utf-8"), page
    boots = modules._FOR_KIND[kind]
    assert KINDS[kind] in boots
