# SPDX-License-Identifier: Apache-2.0
"""What a policy says about a holder, one record for each kind (docs/policy.md §3)."""

from __future__ import annotations

from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keyquorum.model.fields import Fields

COLLATERAL = "/var/lib/keyquorum/collateral"  # where linux.collateral_store keeps it, which a model may not import
MAX_PATH = 4096
MOST_APPRAISALS = 3  # policies for one enclave: Azure's machines need that many
FACTS = ("bios-version", "cpu-model")
PCR_BANKS = ("sha1", "sha256", "sha384", "sha512")


class DiskOptions(Record):
    """A fragment disk: a path, or PARTUUID=…, PARTLABEL=…, UUID=…, LABEL=… or ID=… (udev's names)."""

    device: str


class TpmOptions(Record):
    """A TPM 2.0 on this machine.

    `pcrs` are bound by their present values; `signed_pcrs` by policies signed with `public_key` (a PEM path), in
    systemd's tpm2-pcr-signature.json. `facts` are measured by keyquorum into `facts_pcr` before the TPM is asked.
    """

    pcrs: tuple[int, ...] = ()
    bank: str = "sha256"
    pin: bool = False
    public_key: str = ""
    signed_pcrs: tuple[int, ...] = ()
    facts: tuple[str, ...] = ()
    facts_pcr: int = 13


class Pkcs11Options(Record):
    """A key pair on a token or HSM, by RFC 7512 URI (object= or id= names the key)."""

    uri: str


class PassphraseOptions(Record):
    """A passphrase that a person knows, stretched by Argon2id. `memory` in MiB."""

    memory: int = 128
    passes: int = 3


class SheetOptions(Record):
    """A printed sheet."""


class CustodianOptions(Record):
    """A service on the network, by its id, at which this machine is enrolled (docs/custodian.md §7).

    `release` and `reference` are paths of what the owner lays down there: the release policy, and the reference values
    that the machine is judged by.
    """

    id: str
    release: str
    reference: str


class EnclaveOptions(CustodianOptions):
    """A custodian that proves what it runs (docs/holders-enclave.md §2).

    `appraisal` are paths of signed policies; `collateral` is the store's; `test_roots` is a path, "" for none.
    """

    appraisal: tuple[str, ...]
    collateral: str = COLLATERAL
    test_roots: str = ""


def _disk(fields: Fields) -> DiskOptions:
    return DiskOptions(device=fields.text("device"))


def _pcrs(fields: Fields, name: str) -> tuple[int, ...]:
    rows = fields.rows(name, most=24, default=True)
    if not all(isinstance(pcr, int) and not isinstance(pcr, bool) and 0 <= pcr <= 23 for pcr in rows):
        fields.fail(name, "must be PCR numbers from 0 to 23")
    if len(set(rows)) != len(rows):
        fields.fail(name, "names a PCR twice")
    return tuple(sorted(rows))


def _tpm(fields: Fields) -> TpmOptions:
    facts = tuple(fields.rows("facts", most=len(FACTS), default=True))
    if not all(fact in FACTS for fact in facts) or len(set(facts)) != len(facts):
        fields.fail("facts", f"may name each of {', '.join(FACTS)} once")
    options = TpmOptions(
        pcrs=_pcrs(fields, "pcrs"),
        bank=fields.choice("bank", PCR_BANKS, default="sha256"),
        pin=fields.flag("pin"),
        public_key=fields.text("public_key", longest=4096, default="-").removeprefix("-"),
        signed_pcrs=_pcrs(fields, "signed_pcrs"),
        facts=tuple(fact for fact in FACTS if fact in facts),
        facts_pcr=fields.integer("facts_pcr", 8, 15, default=13),
    )
    if bool(options.signed_pcrs) != bool(options.public_key):
        fields.fail("signed_pcrs", "and public_key go together")
    if options.facts and options.facts_pcr in options.pcrs:
        fields.fail("facts_pcr", "is among pcrs already; facts have a PCR of their own")
    return options


def _pkcs11(fields: Fields) -> Pkcs11Options:
    uri = fields.text("uri", longest=1024)
    if not uri.startswith("pkcs11:"):
        fields.fail("uri", "must start with pkcs11: (RFC 7512)")
    for attribute in ("pin-value", "module-path", "pin-source"):
        if attribute in uri:
            fields.fail("uri", f"may not hold {attribute}: PINs are asked for and modules come from the settings")
    return Pkcs11Options(uri=uri)


def _passphrase(fields: Fields) -> PassphraseOptions:
    return PassphraseOptions(
        memory=fields.integer("memory", 8, 4096, default=128), passes=fields.integer("passes", 1, 100, default=3)
    )


def _sheet(_fields: Fields) -> SheetOptions:
    return SheetOptions()


def _custodian(fields: Fields) -> CustodianOptions:
    return CustodianOptions(
        id=fields.name("id", longest=128),
        release=fields.text("release", longest=4096),
        reference=fields.text("reference", longest=4096),
    )


def _enclave(fields: Fields) -> EnclaveOptions:
    custodian = _custodian(fields)
    rows = fields.rows("appraisal", most=MOST_APPRAISALS)
    texts = tuple(
        fields.row("appraisal", n, {"path": row}).text("path", longest=MAX_PATH) for n, row in enumerate(rows)
    )
    found = EnclaveOptions(
        id=custodian.id,
        release=custodian.release,
        reference=custodian.reference,
        appraisal=texts,
        collateral=fields.text("collateral", longest=MAX_PATH, default=COLLATERAL),
        test_roots=fields.text("test_roots", longest=MAX_PATH, default="-").removeprefix("-"),
    )
    if not texts or len(set(texts)) != len(texts):
        fields.fail("appraisal", "is empty or names a file twice: give the signed policies that the enclave must meet")
    paths = (*texts, found.collateral, found.test_roots or "/")
    if not all(path.startswith("/") and not any(character.isspace() for character in path) for path in paths):
        fields.fail(
            "appraisal",
            "collateral and test_roots are whole paths without white space: a boot image has them at the same place",
        )
    return found


READERS: dict[str, Callable[[Fields], Any]] = {
    "disk": _disk,
    "tpm": _tpm,
    "pkcs11": _pkcs11,
    "passphrase": _passphrase,
    "sheet": _sheet,
    "custodian": _custodian,
    "enclave": _enclave,
}
