# SPDX-License-Identifier: Apache-2.0
"""What an administrator should know about a policy that is allowed all the same (docs/policy.md §7)."""

from __future__ import annotations

from keyquorum.model.explain import asks_person
from keyquorum.model.holder_options import TpmOptions
from keyquorum.model.placement import by_value
from keyquorum.model.token_size import STOCK_ROOM
from keyquorum.model.tree import Leaf, Node, satisfied
from keyquorum.model.volume_set import MAX_PAYLOAD
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyquorum.model.explain import Meaning
    from keyquorum.model.policy import Policy


class Caution(Record):
    """A warning: a stable code for scripts, and the sentence."""

    code: str
    message: str


def cautions(meaning: Meaning) -> tuple[Caution, ...]:
    """Return every warning about a policy."""
    policy = meaning.policy
    return (
        *_strength(meaning),
        *_shape(meaning),
        *_places(policy),
        *_tpm(policy),
        *_labels(policy),
        *_settings(meaning),
    )


def _strength(meaning: Meaning) -> Iterator[Caution]:
    policy = meaning.policy
    for place in meaning.alone:
        yield Caution(code="alone", message=f"{policy.names_at(place)} alone opens the volume")
    total = len(policy.places())
    if total > 1 and len(meaning.indispensable) == total:
        yield Caution(code="all-needed", message=f"no holder may ever be missing: all {total} are needed")
    elif total > 1:
        for place in meaning.indispensable:
            name = policy.names_at(place)
            yield Caution(code="indispensable", message=f"{name} is indispensable: nothing opens without it")
    for place in meaning.idle:
        yield Caution(code="idle", message=f"{policy.names_at(place)} decides nothing: no quorum needs it")
    phrases = {spec.index for spec in policy.holders if spec.kind == "passphrase"}
    if satisfied(policy.tree, phrases):
        names = ", ".join(dict.fromkeys(spec.holder for spec in policy.holders if spec.index in phrases))
        yield Caution(
            code="passphrases-only",
            message=f"passphrases alone open it ({names}): whoever has the header can guess them one by one",
        )


def _shape(meaning: Meaning) -> Iterator[Caution]:
    for path, name in meaning.policy.groups:
        if len(_node(meaning.policy.tree, path).children) == 1:
            yield Caution(code="one-member", message=f"group {name} has one member: it decides nothing")


def _node(tree: Node, path: tuple[int, ...]) -> Node:
    for number in path:
        child = tree.children[number - 1]
        assert not isinstance(child, Leaf)
        tree = child
    return tree


def _places(policy: Policy) -> Iterator[Caution]:
    for place in policy.places():
        here = [spec for spec in policy.holders if spec.place == place]
        names = list(dict.fromkeys(spec.holder for spec in here))
        if len(names) > 1:
            yield Caution(
                code="same-place",
                message=f"{' and '.join(names)} are in one place ({place}): they count as one holder",
            )
        for name in names:
            own = [spec for spec in here if spec.holder == name]
            if len(own) > 1:
                asks = " and is asked for each" if asks_person(own[0]) else ""
                yield Caution(code="several-fragments", message=f"{name} holds {len(own)} fragments{asks}")


def _tpm(policy: Policy) -> Iterator[Caution]:
    for name, options in {spec.holder: spec.options for spec in policy.holders}.items():
        if not isinstance(options, TpmOptions):
            continue
        if not (options.pcrs or options.signed_pcrs or options.facts):
            guard = "asks for a PIN but " if options.pin else ""
            yield Caution(
                code="tpm-without-pcr",
                message=f"{name} {guard}binds no PCR: whatever system is started on this machine can use it",
            )
        if policy.measure_pcr in options.pcrs:
            yield Caution(
                code="binds-measured-pcr",
                message=f"{name} binds PCR {policy.measure_pcr}, which changes whenever a volume is opened",
            )
        if options.bank == "sha1":
            yield Caution(code="sha1", message=f"{name} binds PCRs of the SHA-1 bank, which can be forged")


def _labels(policy: Policy) -> Iterator[Caution]:
    written = dict.fromkeys(label for spec in policy.holders for label, _ in spec.labels)
    for label in written:
        if label in policy.rules.no_quorum_within:
            continue
        for value, specs in by_value(policy, label):
            if len(policy.places()) > 1 and satisfied(policy.tree, {spec.index for spec in specs}):
                names = ", ".join(dict.fromkeys(spec.holder for spec in specs))
                yield Caution(
                    code="one-label",
                    message=f"all of a quorum has {label} {value} ({names}); "
                    f'no_quorum_within = ["{label}"] under [rules] would refuse that',
                )


def _settings(meaning: Meaning) -> Iterator[Caution]:
    policy, size = meaning.policy, meaning.size
    if policy.kem == "x25519":
        yield Caution(
            code="x25519", message="fragments are sealed by X25519 alone: a later quantum computer opens copies of them"
        )
    if policy.valid_days:
        yield Caution(
            code="expires",
            message=f"all fragments expire {policy.valid_days} days after enrolment: rotate before, "
            "or only an ordinary keyslot still opens the volume",
        )
    if not size.fits_set:
        yield Caution(
            code="set-too-large",
            message=f"the set has about {size.volume_set} bytes, at most {MAX_PAYLOAD} can be enrolled: "
            "use fewer fragments",
        )
    elif not size.fits_stock_header:
        smaller = "" if policy.kem == "x25519" else ' or write kem = "x25519" under [fragments]'
        yield Caution(
            code="token-too-large",
            message=f"the LUKS2 token has about {size.token} bytes and a stock header room for {STOCK_ROOM}: "
            f"format the volume with --luks2-metadata-size 64k{smaller}",
        )
