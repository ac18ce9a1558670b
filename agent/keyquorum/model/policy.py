# SPDX-License-Identifier: Apache-2.0
"""A policy as its file says it: the tree of holders, placement rules and settings (docs/policy.md).

Read on the administrator's side only; what a boot needs of it is in the signed set. `parse` is pure and takes the
table that a TOML parser gives. Every refusal is a `MalformedError` that names file and field.
"""

from __future__ import annotations

from keyquorum.errors import MalformedError
from keyquorum.model import quorum
from keyquorum.model.fields import Fields
from keyquorum.model.holder_options import READERS, CustodianOptions, DiskOptions, Pkcs11Options, TpmOptions
from keyquorum.model.tree import MAX_DEPTH, MAX_LEAVES, Leaf, Node
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

VERSION = 1
MAX_FILE = 64 * 1024
KEMS = ("x-wing", "x25519")
MAX_DAYS = 36_500
MAX_NAME = 28  # a fragment's name is at most 32 and may add ".255"
MAX_LABELS = 16
MAX_TRUST = 9
OWN_LABELS = ("kind", "device")  # every holder has these by itself
_MAX_LABEL = 64
_FIRST_OWN_PCR = 8  # PCRs 0 to 7 are extended by the firmware (TCG PC Client Platform Firmware Profile §3.3.4)
_PARTS = ("version", "threshold", "of", "holder", "group", "rules", "fragments", "volume")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_KEY_ATTRIBUTES = ("object", "id", "type")  # of a PKCS#11 URI; the others say which token


class HolderSpec(Record):
    """One fragment and the holder that keeps it.

    `index` counts fragments from 1 in reading order. `name` is the fragment's; it is `holder`, the name in the file,
    with ".2", ".3" … when that holder keeps several. `options` is the kind's record from `model.holder_options`.
    `place` says where it is, in words: what is in one place is lost and stolen together.
    """

    index: int
    name: str
    holder: str
    kind: str
    options: Any
    labels: tuple[tuple[str, str], ...]
    place: str

    def label(self, name: str) -> str:
        """Return a label's value; "" when the holder has no such label."""
        own = {"kind": self.kind, "device": self.place}
        return own.get(name) or dict(self.labels).get(name, "")


class Rules(Record):
    """Placement rules (docs/policy.md §4): labels, how many holders may be lost, custodians' least trust level."""

    distinct: tuple[str, ...] = ()
    no_quorum_within: tuple[str, ...] = ()
    survives: int = 0
    minimum_trust: int = 0


class Policy(Record):
    """A policy. `holders` is in the order of the tree's leaves; `groups` names the nodes below the root by their path.

    `kem` is "" when the machine decides; `valid_days` 0 is for ever; `measure_pcr` -1 is none.
    """

    tree: Node
    holders: tuple[HolderSpec, ...]
    groups: tuple[tuple[tuple[int, ...], str], ...]
    rules: Rules
    kem: str
    valid_days: int
    measure_pcr: int
    allow_single_holder: bool

    def places(self) -> tuple[str, ...]:
        """Return the places in reading order; place number i is the i-th, counted from 0."""
        return tuple(dict.fromkeys(spec.place for spec in self.holders))

    def by_place(self, tree: Node) -> Node:
        """Return a tree of this policy's fragments with the numbers of their places at its leaves."""
        order = {place: number for number, place in enumerate(self.places())}
        return quorum.relabel(tree, {spec.index: order[spec.place] for spec in self.holders})

    def place_tree(self) -> Node:
        """Return the whole tree with places at its leaves."""
        return self.by_place(self.tree)

    def holder_tree(self) -> Node:
        """Return the whole tree with, at its leaves, the index of each holder's first fragment."""
        first = {spec.holder: spec.index for spec in reversed(self.holders)}
        return quorum.relabel(self.tree, {spec.index: first[spec.holder] for spec in self.holders})

    def names_at(self, place: int) -> str:
        """Return the holders in a place, joined by a plus sign."""
        found = dict.fromkeys(spec.holder for spec in self.holders if spec.place == self.places()[place])
        return "+".join(found)


class _Declared(Record):
    """A [holder.NAME] table."""

    kind: str
    options: Any
    labels: tuple[tuple[str, str], ...]


class _Group(Record):
    """A threshold over names: a [group.NAME] table, or the file's own top."""

    threshold: int
    of: tuple[str, ...]


def parse(table: object, what: str) -> Policy:
    """Read a policy from a parsed TOML table; `what` is the file's name in errors."""
    fields = Fields(table, what, MalformedError)
    for name in fields.names():
        if name not in _PARTS:
            _refuse(what, _shown(name), "is not known here", _similar(name, _PARTS))
    version = fields.integer("version", 0, 1 << 31)
    if version != VERSION:
        fields.fail("version", f"{version} is not known here (this program knows {VERSION})")
    holders = {name: _holder(one) for name, one in _named_tables(fields, "holder")}
    groups = {name: _group(one) for name, one in _named_tables(fields, "group")}
    for name in groups:
        if name in holders:
            _refuse(what, f"group.{name}", "is the name of a holder already")
    builder = _Builder(what, holders, groups)
    tree = builder.grow(_group(fields, finish=False), "", ())
    builder.refuse_unused()
    rules, fragments, volume = (_section(fields, name) for name in ("rules", "fragments", "volume"))
    policy = Policy(
        tree=tree,
        holders=tuple(builder.specs),
        groups=tuple(builder.paths.items()),
        rules=_rules(rules),
        kem=fragments.choice("kem", KEMS) if fragments.has("kem") else "",
        valid_days=fragments.integer("valid_days", 0, MAX_DAYS, default=0),
        measure_pcr=volume.integer("measure_pcr", -1, 15, default=15),
        allow_single_holder=volume.flag("allow_single_holder"),
    )
    for fully_read in (fragments, volume, fields):
        fully_read.finish()
    _refuse_contradictions(policy, what)
    return policy


def _named_tables(fields: Fields, part: str) -> list[tuple[str, Fields]]:
    """Take the tables [part.NAME]."""
    if not fields.has(part):
        return []
    tables = fields.table(part)
    for name in tables.names():
        if not name or len(name) > MAX_NAME or not _NAME.issuperset(name):
            _refuse(fields.what, f"{part}.{_shown(name)}", f"names are 1 to {MAX_NAME} of a-z, 0-9, dash, underscore")
    return [(name, tables.table(name)) for name in tables.names()]


def _section(fields: Fields, name: str) -> Fields:
    return fields.table(name) if fields.has(name) else Fields({}, fields.what, MalformedError, name)


def _holder(fields: Fields) -> _Declared:
    kind = fields.choice("kind", tuple(READERS))
    options = READERS[kind](fields)
    labels: list[tuple[str, str]] = []
    if fields.has("labels"):
        table = fields.table("labels")
        for name in table.names():
            if not name or len(name) > 32 or not _NAME.issuperset(name):
                _refuse(fields.what, f"{table.path}.{_shown(name)}", "labels are 1 to 32 of a-z, 0-9, dash, underscore")
            if name in OWN_LABELS:
                table.fail(name, "is given by the holder itself")
            labels.append((name, table.text(name, longest=_MAX_LABEL)))
        if len(labels) > MAX_LABELS:
            fields.fail("labels", f"has {len(labels)} labels, more than {MAX_LABELS}")
    fields.finish()
    return _Declared(kind=kind, options=options, labels=tuple(labels))


def _group(fields: Fields, *, finish: bool = True) -> _Group:
    of = _texts(fields, "of")
    if not of:
        fields.fail("of", "is empty")
    threshold = fields.integer("threshold", 1, MAX_LEAVES)
    if threshold > len(of):
        fields.fail("threshold", f"{threshold} of {len(of)} can never be reached")
    if finish:
        fields.finish()
    return _Group(threshold=threshold, of=of)


def _rules(fields: Fields) -> Rules:
    rules = Rules(
        distinct=_texts(fields, "distinct", default=True),
        no_quorum_within=_texts(fields, "no_quorum_within", default=True),
        survives=fields.integer("survives", 0, MAX_LEAVES - 1, default=0),
        minimum_trust=fields.integer("minimum_trust", 0, MAX_TRUST, default=0),
    )
    for name in ("distinct", "no_quorum_within"):
        labels = getattr(rules, name)
        if len(set(labels)) != len(labels):
            fields.fail(name, "names a label twice")
    fields.finish()
    return rules


def _texts(fields: Fields, name: str, *, default: bool = False) -> tuple[str, ...]:
    rows = fields.rows(name, default=default)
    for index, row in enumerate(rows):
        if not isinstance(row, str) or not row.isprintable():
            fields.fail(f"{name}[{index}]", "must be a name in quotes")
    return tuple(rows)


class _Builder:
    """Builds the tree from names, numbering fragments as it goes."""

    def __init__(self, what: str, holders: dict[str, _Declared], groups: dict[str, _Group]) -> None:
        self._what, self._holders, self._groups = what, holders, groups
        self.specs: list[HolderSpec] = []
        self.paths: dict[tuple[int, ...], str] = {}

    def grow(self, group: _Group, name: str, path: tuple[int, ...], trail: tuple[str, ...] = ()) -> Node:
        """Return the node of a group; `name` is "" for the root, `trail` the groups around it."""
        children: list[Node | Leaf] = []
        for position, member in enumerate(group.of):
            where = f"group.{name}.of[{position}]" if name else f"of[{position}]"
            if member in self._holders:
                children.append(self._leaf(member, where))
            elif member in self._groups:
                self._check_group(member, trail, where)
                inner = (*path, position + 1)
                self.paths[inner] = member
                children.append(self.grow(self._groups[member], member, inner, (*trail, member)))
            else:
                hint = _similar(member, (*self._holders, *self._groups))
                _refuse(self._what, where, f"{_shown(member)} is neither a holder nor a group", hint)
        return Node(threshold=group.threshold, children=tuple(children))

    def _leaf(self, holder: str, where: str) -> Leaf:
        if len(self.specs) == MAX_LEAVES:
            _refuse(self._what, where, f"is fragment number {MAX_LEAVES + 1}; a policy has at most {MAX_LEAVES}")
        found, index = self._holders[holder], len(self.specs) + 1
        before = sum(spec.holder == holder for spec in self.specs)
        self.specs.append(
            HolderSpec(
                index=index,
                name=f"{holder}.{before + 1}" if before else holder,
                holder=holder,
                kind=found.kind,
                options=found.options,
                labels=found.labels,
                place=_place(holder, found),
            )
        )
        return Leaf(index=index)

    def _check_group(self, name: str, trail: tuple[str, ...], where: str) -> None:
        if name in trail:
            circle = " -> ".join((*trail[trail.index(name) :], name))
            _refuse(self._what, where, f"the groups go round in a circle: {circle}")
        if name in self.paths.values():
            _refuse(self._what, where, f"group {name} is used already; only holders may stand in several places")
        if len(trail) + 2 > MAX_DEPTH:
            _refuse(self._what, where, f"is nested more than {MAX_DEPTH} deep")

    def refuse_unused(self) -> None:
        """Refuse what is declared but stands nowhere: more likely a slip than a wish."""
        used = {spec.holder for spec in self.specs}
        for name in self._groups:
            if name not in self.paths.values():
                _refuse(self._what, f"group.{name}", "is used nowhere", f'add "{name}" to an `of` list or remove it')
        for name in self._holders:
            if name not in used:
                _refuse(self._what, f"holder.{name}", "is used nowhere", f'add "{name}" to an `of` list or remove it')


def _place(name: str, holder: _Declared) -> str:
    """Say where a holder is: what the label "device" stands for, and what is lost and stolen as one."""
    options = holder.options
    if isinstance(options, TpmOptions):
        return "the TPM of this machine"
    if isinstance(options, DiskOptions):
        tag, equals, value = options.device.partition("=")
        return f"disk {tag}={value.lower()}" if equals and tag in {"PARTUUID", "UUID"} else f"disk {options.device}"
    if isinstance(options, CustodianOptions):
        return f"custodian {options.id}"
    if isinstance(options, Pkcs11Options):
        parts = options.uri.removeprefix("pkcs11:").partition("?")[0].split(";")
        token = sorted(part for part in parts if part.partition("=")[0] not in _KEY_ATTRIBUTES)
        return f"token {';'.join(token)}" if token else f"key {options.uri}"
    return f"{holder.kind} {name}"


def _refuse_contradictions(policy: Policy, what: str) -> None:
    tree = policy.place_tree()
    if max(quorum.cases(tree), quorum.cases(policy.holder_tree())) > quorum.MAX_CASES:
        _refuse(what, "of", "too many holders keep several fragments in different groups to say what this policy means")
    single = quorum.alone(tree)
    if single and not policy.allow_single_holder:
        _refuse(
            what,
            "threshold",
            f"{policy.names_at(single[0])} alone opens the volume",
            "raise the threshold, or write allow_single_holder = true under [volume] if that is meant",
        )
    if 0 <= policy.measure_pcr < _FIRST_OWN_PCR:
        _refuse(what, "volume.measure_pcr", f"PCR {policy.measure_pcr} belongs to the firmware; take 8 to 15, or -1")
    for spec in policy.holders:
        options = spec.options
        if isinstance(options, TpmOptions) and options.facts and options.facts_pcr == policy.measure_pcr:
            _refuse(
                what,
                f"holder.{spec.holder}.facts_pcr",
                f"{options.facts_pcr} is the PCR that opened volumes are measured into",
                "give facts another PCR, or set measure_pcr under [volume]",
            )


def _refuse(what: str, where: str, problem: str, hint: str = "") -> NoReturn:
    raise MalformedError(what, where, problem, hint)


def _shown(name: str) -> str:
    """Return a name from the file so that a terminal can show it."""
    return name[:40] if name.isprintable() and name else ascii(name[:40])


def _similar(name: str, known: tuple[str, ...]) -> str:
    """Return a hint when a name looks like a slip of the pen."""
    from difflib import get_close_matches

    found = get_close_matches(name, known, 1)
    return f'did you mean "{found[0]}"?' if found else ""
