# SPDX-License-Identifier: Apache-2.0
"""A transaction that SQLite itself ends, as it does after an error of the disk (docs/custodian.md §8.1)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from keyquorum.custodian.store import Deposit
from keyquorum.custodian.store_releases import Releases, Standing
from keyquorum.custodian.verdict import Verdict
from keyquorum.errors import KeyquorumError
from unit.custodian.notes import LOG, NOW, an_entry
from unit.custodian.stores import a_store, asking, judge


@pytest.mark.parametrize("noticed", [True, False])
def test_a_transaction_that_sqlite_takes_back_takes_all_that_was_in_it(tmp_path: Path, noticed: bool) -> None:
    """As after an error of the disk, in the middle of a decision: no denial, nor anything else, is written alone."""
    with closing(a_store(tmp_path)) as found:
        before = found.log.size

        def judged(deposit: Deposit, standing: Standing) -> Verdict:
            found._database.execute("ROLLBACK")
            if noticed:
                raise KeyquorumError("the disk has an error")
            return judge()(deposit, standing)

        def all_together() -> None:
            with found.writing():
                for reason in ("one", "two"):
                    found.record(an_entry(0, reason))
                Releases(found).decide(asking(), NOW, judged)

        with pytest.raises(KeyquorumError):
            all_together()
        assert found.log.size == before
        assert found.record(an_entry(0, "later")).number == before
        found.examine(LOG.key).demand()
