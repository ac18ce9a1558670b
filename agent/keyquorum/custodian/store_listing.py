# SPDX-License-Identifier: Apache-2.0
"""What is shown of a store: machines, requests that wait for people, and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from keyquorum.custodian.store import Store


def machines(store: Store) -> list[dict[str, Any]]:
    """Return the machines by name; `enrolled` in seconds since 1970, `deposits` how many fragments are theirs."""
    query = """SELECT machine.name, enrolled, revoked IS NOT NULL, count(deposit.machine) FROM machine
        LEFT JOIN deposit ON deposit.machine = machine.name GROUP BY machine.name ORDER BY machine.name"""
    with store.reading() as database:
        rows = database.execute(query).fetchall()
    return [{"name": row[0], "enrolled": row[1], "revoked": bool(row[2]), "deposits": row[3]} for row in rows]


def waiting(store: Store, now: int) -> list[dict[str, Any]]:
    """Return the requests that wait at the instant `now`, with who has approved them."""
    query = """SELECT number, machine, volume, epoch, idx, expires FROM pending
        WHERE closed IS NULL AND expires > ? ORDER BY number"""
    with store.reading() as database:
        rows = database.execute(query, (now,)).fetchall()
        approved = database.execute("SELECT pending, operator FROM approval ORDER BY operator").fetchall()
    return [
        {
            "number": row[0],
            "machine": row[1],
            "volume": row[2],
            "epoch": row[3],
            "index": row[4],
            "expires": row[5],
            "approved": [operator for number, operator in approved if number == row[0]],
        }
        for row in rows
    ]


def counts(store: Store) -> dict[str, int]:
    """Return numbers for the monitoring, none of which says whose something is."""
    questions = {
        "log_entries": "SELECT count(*) FROM entry",
        "machines": "SELECT count(*) FROM machine WHERE revoked IS NULL",
        "machines_revoked": "SELECT count(*) FROM machine WHERE revoked IS NOT NULL",
        "deposits": "SELECT count(*) FROM deposit",
        "evidence": "SELECT count(*) FROM evidence",
        "checkpoints": "SELECT count(*) FROM checkpoint",
        "requests_pending": "SELECT count(*) FROM pending WHERE closed IS NULL",
        "releases": "SELECT count(*) FROM release",
    }
    with store.reading() as database:
        return {name: int(database.execute(query).fetchone()[0]) for name, query in questions.items()}
