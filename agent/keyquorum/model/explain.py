# SPDX-License-Identifier: Apache-2.0
"""What a policy means, as data and in words (docs/policy.md §6). Pure."""

from __future__ import annotations

from keyquorum.model import quorum
from keyquorum.model.holder_options import (
    CustodianOptions,
    DiskOptions,
    EnclaveOptions,
    PassphraseOptions,
    Pkcs11Options,
    SheetOptions,
    TpmOptions,
)
from keyquorum.model.quorum import Ways
from keyquorum.model.token_size import STOCK_ROOM, TokenSize, estimate
from keyquorum.model.tree import Leaf, Node
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyquorum.model.policy import HolderSpec, Policy

_MOST_SHOWN = 16  # members of a list before it is cut
_MOST_WAYS = 64  # listed as data; in words the first few
_MOST_SPOKEN = 6
_LONGEST_SPOKEN = 6
_MOST_URI = 60


class Meaning(Record):
    """The analysis. Sets hold numbers of places (`Policy.places`); `fatal` is a smallest loss that ends the quorum.

    `unattended` is None when no quorum does without a person; `people` are the holders that ask one, of which any
    quorum has at least `people_needed`.
    """

    policy: Policy
    quorums: Ways
    losses: Ways
    fewest: int
    fatal: tuple[int, ...]
    indispensable: tuple[int, ...]
    idle: tuple[int, ...]
    alone: tuple[int, ...]
    unattended: Ways | None
    people: tuple[str, ...]
    people_needed: int
    size: TokenSize

    @property
    def survives(self) -> int:
        """How many holders may be lost, whichever they are."""
        return len(self.fatal) - 1


def analyse(policy: Policy) -> Meaning:
    """Work out everything that `policy check` says."""
    tree, losses = policy.place_tree(), quorum.dual(policy.place_tree())
    attended = {spec.index for spec in policy.holders if asks_person(spec)}
    silent = {spec.index for spec in policy.holders if spec.index not in attended}
    left = quorum.without(policy.tree, attended)
    return Meaning(
        policy=policy,
        quorums=quorum.ways(tree, _MOST_WAYS),
        losses=quorum.ways(losses, _MOST_WAYS),
        fewest=len(quorum.smallest(tree)),
        fatal=tuple(sorted(quorum.smallest(losses))),
        indispensable=quorum.indispensable(tree),
        idle=quorum.idle(tree),
        alone=quorum.alone(tree),
        unattended=None if left is None else quorum.ways(policy.by_place(left), _MOST_WAYS),
        people=tuple(dict.fromkeys(spec.holder for spec in policy.holders if spec.index in attended)),
        people_needed=len(quorum.smallest(policy.holder_tree(), silent)),
        size=estimate(policy),
    )


def asks_person(spec: HolderSpec) -> bool:
    """Say whether opening asks a person for a passphrase, sheet or PIN (a stored credential may answer instead)."""
    options = spec.options
    return options.pin if isinstance(options, TpmOptions) else not isinstance(options, DiskOptions | CustodianOptions)


def describe(spec: HolderSpec) -> str:
    """Return what a holder is, in a few words."""
    options = spec.options
    if isinstance(options, TpmOptions):
        return ", ".join(["TPM 2.0", *_tpm_conditions(options)])
    if isinstance(options, DiskOptions):
        return f"fragment disk {options.device}"
    if isinstance(options, EnclaveOptions):
        return f"enclave {options.id}{', by TEST ROOTS' if options.test_roots else ''}"
    if isinstance(options, CustodianOptions):
        return f"custodian {options.id}"
    if isinstance(options, Pkcs11Options):
        uri = options.uri if len(options.uri) <= _MOST_URI else options.uri[: _MOST_URI - 3] + "..."
        return f"token key {uri}"
    if isinstance(options, PassphraseOptions):
        return f"passphrase, Argon2id {options.memory} MiB"
    return "printed sheet" if isinstance(options, SheetOptions) else spec.kind


def _tpm_conditions(options: TpmOptions) -> list[str]:
    conditions = [_pcrs(options.pcrs)] if options.pcrs else []
    if options.signed_pcrs:
        conditions.append(f"signed {_pcrs(options.signed_pcrs)}")
    if options.facts:
        words = {"bios-version": "BIOS version", "cpu-model": "CPU model"}
        conditions.append(" and ".join(words[fact] for fact in options.facts))
    return [*(conditions or ["no PCR"]), *(["PIN"] if options.pin else [])]


def _pcrs(numbers: tuple[int, ...]) -> str:
    return f"PCR{'s' if len(numbers) > 1 else ''} {_list([str(number) for number in numbers])}"


def words(policy: Policy) -> tuple[str, ...]:
    """Return the explanation of a policy, line by line."""
    return sentences(analyse(policy))


def sentences(meaning: Meaning) -> tuple[str, ...]:
    """Return an analysis in words, line by line."""
    policy = meaning.policy
    lines = [opens_with(policy), *_ways_line(meaning), _person_line(meaning)]
    lines += [_survives_line(meaning), fails_if(policy)]
    rules = policy.rules
    written = [f"distinct {label}" for label in rules.distinct]
    written += [f"no_quorum_within {label}" for label in rules.no_quorum_within]
    written += [f"survives {rules.survives}"] if rules.survives else []
    written += [f"minimum_trust {rules.minimum_trust}"] if rules.minimum_trust else []
    if written:
        lines.append(f"rules: {', '.join(written)}")
    kem = {"": "X-Wing, or X25519 where this machine cannot open X-Wing", "x-wing": "X-Wing", "x25519": "X25519"}
    days = policy.valid_days
    expiry = f"valid for {days} day{'s' if days > 1 else ''}" if days else "valid for ever"
    lines.append(f"fragments: {len(policy.holders)}, sealed by {kem[policy.kem]}, {expiry}")
    lines.append(f"LUKS2 token: about {_kib(meaning.size.token)}; a stock header has room for {_kib(STOCK_ROOM)}")
    return tuple(lines)


def opens_with(policy: Policy) -> str:
    """Return the tree in words: "opens with any 2 of: a, b, and c"."""

    def name(spec: HolderSpec) -> str:
        return f"{spec.name} ({describe(spec)})"

    members = _members(policy, policy.tree, (), name, missing=False)
    amount = _amount(policy.tree.threshold, len(policy.tree.children))
    return f"opens with {amount} of: {_list(members)}" if amount else f"opens with {members[0]}"


def fails_if(policy: Policy) -> str:
    """Return which losses end the quorum, in words: "fails if any 2 of these are missing: a, b, and c"."""
    total = len(policy.tree.children)
    needed = total - policy.tree.threshold + 1
    members = _list(_members(policy, policy.tree, (), lambda spec: spec.name, missing=True))
    these = "these" if len(policy.holders) == len(policy.places()) else "these fragments"
    if total == 1:
        return f"fails if {members} is missing"
    if needed == 1:
        return f"fails if any of {these} is missing: {members}"
    return f"fails if {_amount(needed, total)} of {these} are missing: {members}"


def _members(
    policy: Policy, node: Node, path: tuple[int, ...], name: Callable[[HolderSpec], str], *, missing: bool
) -> list[str]:
    """Return the children in words; `missing` counts how many must be lost instead of how many are needed."""
    found: list[str] = []
    for position, child in enumerate(node.children, 1):
        if isinstance(child, Leaf):
            found.append(name(policy.holders[child.index - 1]))
            continue
        inner = (*path, position)
        total = len(child.children)
        amount = _amount(total - child.threshold + 1 if missing else child.threshold, total)
        members = _cut(_members(policy, child, inner, lambda spec: spec.name, missing=missing))
        group = f"{dict(policy.groups)[inner]} ({', '.join(members)})"
        found.append(f"{amount} of {group}" if amount else group)
    return found


def _amount(threshold: int, total: int) -> str:
    """Return "any 2", "both" or "all 3"; "" for one of one."""
    if threshold < total:
        return f"any {threshold}"
    return {1: "", 2: "both"}.get(total, f"all {total}")


def _ways_line(meaning: Meaning) -> list[str]:
    if meaning.quorums.total == 1:
        return []
    shown = _ways(meaning, meaning.quorums)
    total = meaning.quorums.total
    if total < 0:
        return [f"many ways to open it{': ' + shown if shown else ''}"]
    fewest = "" if shown else f", each with at least {meaning.fewest} holders"
    return [f"{_number(total)} ways to open it{': ' + shown if shown else fewest}"]


def _survives_line(meaning: Meaning) -> str:
    count = meaning.survives
    line = f"survives the loss of {f'any {count}' if count else 'no'} holder{'s' if count > 1 else ''}"
    if len(meaning.policy.holders) == len(meaning.policy.places()):
        return line
    # Fragments that are lost together: the next line counts fragments, so name a loss of holders that is fatal
    return f"{line}; the loss of {_list([meaning.policy.names_at(place) for place in meaning.fatal])} is fatal"


def _person_line(meaning: Meaning) -> str:
    if not meaning.people:
        return "opens unattended: no holder asks a person"
    if meaning.unattended is None:
        needed, people = meaning.people_needed, list(meaning.people)
        if needed in {1, len(people)}:
            return f"needs a person: no quorum without {_list(people, 'or' if needed == 1 else 'and')}"
        return f"needs a person: no quorum without {needed} of: {_list(people)}"
    shown = _ways(meaning, meaning.unattended)
    return f"opens unattended with: {shown}" if shown else "opens unattended with holders that ask nobody"


def _ways(meaning: Meaning, ways: Ways) -> str:
    """Return the first sets with pluses; "" when they are too long to be read."""
    spoken = ways.shown[:_MOST_SPOKEN]
    if any(len(way) > _LONGEST_SPOKEN for way in spoken):
        return ""
    found = [" + ".join(meaning.policy.names_at(place) for place in way) for way in spoken]
    if ways.total > len(found):
        found.append(f"and {_number(ways.total - len(found))} more")
    elif ways.total < 0:
        found.append("and more")
    return "; ".join(found)


def _list(items: Sequence[str], word: str = "and") -> str:
    items = _cut(items)
    if len(items) < 3:
        return f" {word} ".join(items)
    last = items[-1] if items[-1].startswith("and ") else f"{word} {items[-1]}"
    return f"{', '.join(items[:-1])}, {last}"


def _cut(items: Sequence[str]) -> list[str]:
    if len(items) <= _MOST_SHOWN:
        return list(items)
    return [*items[: _MOST_SHOWN - 1], f"and {len(items) - _MOST_SHOWN + 1} more"]


def _number(value: int) -> str:
    digits = str(value)
    return digits if len(digits) <= 9 else f"about {digits[0]}.{digits[1]}e{len(digits) - 1}"


def _kib(size: int) -> str:
    return f"{max(1, (size + 512) // 1024)} KiB"
