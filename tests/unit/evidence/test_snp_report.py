# SPDX-License-Identifier: Apache-2.0
"""The reader of SNP reports and of AMD's certificates (docs/attestation-snp.md §2, §3)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.evidence import snp_certificates, snp_report
from unit.evidence.snp_maker import CHIP, Scene, certificate, chip_key, integer
from unit.evidence.tpm_maker import private

GOOD = Scene().unsigned()


def changed(offset: int, value: bytes) -> bytes:
    return GOOD[:offset] + value + GOOD[offset + len(value) :]


SPOILED = {
    "short": (GOOD[:-1], "size"),
    "long": (GOOD + b"\0", "size"),
    "empty": (b"", "size"),
    "version 0": (changed(0, b"\0"), "version"),
    "version 1": (changed(0, b"\1"), "version"),
    "version 4": (changed(0, b"\4"), "version"),
    "version 6": (changed(0, b"\6"), "version"),
    "version 259": (changed(0, b"\3\1"), "version"),
    "no algorithm": (changed(0x34, b"\0"), "algorithm"),
    "another algorithm": (changed(0x34, b"\2"), "algorithm"),
    "after the flags": (changed(0x4F, b"\1"), "reserved"),
    "unknown flag": (changed(0x48, b"\x20"), "reserved"),
    "high flag": (changed(0x4B, b"\x80"), "reserved"),
    "after the stepping": (changed(0x18B, b"\1"), "reserved"),
    "before the chip": (changed(0x19F, b"\1"), "reserved"),
    "current firmware": (changed(0x1EB, b"\1"), "reserved"),
    "committed firmware": (changed(0x1EF, b"\1"), "reserved"),
    "mitigations of version 3": (changed(0x1F8, b"\1"), "reserved"),
    "last of the signed": (changed(0x29F, b"\1"), "reserved"),
    "after the signature": (changed(0x330, b"\1"), "reserved"),
    "last byte": (changed(0x49F, b"\1"), "reserved"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_not_a_report_is_refused(name: str) -> None:
    data, where = SPOILED[name]
    with pytest.raises(TamperingError) as refused:
        snp_report.parse(data, "report")
    assert refused.value.where == where


def test_every_field_is_where_it_belongs() -> None:
    report = snp_report.parse(GOOD, "report")
    assert (report.version, report.guest_svn, report.vmpl, report.signing_key) == (3, 2, 0, 0)
    assert (report.policy, report.platform) == (0x3D20131, 0b111100)
    assert (report.firmware, report.committed_firmware) == ((1, 55, 29), (1, 55, 29))
    assert report.tcb.hex() == "04000000000018db"
    assert report.chip_id == CHIP
    flags = snp_report.parse(changed(0x48, b"\x1f"), "report")
    assert (flags.author_key, flags.masked_chip_key, flags.signing_key) == (True, True, 7)
    assert snp_report.parse(Scene(product="Turin").unsigned(), "report").current_mitigations == 0x3F


def test_version_2_has_nothing_about_the_processor() -> None:
    with pytest.raises(TamperingError):
        snp_report.parse(changed(0, b"\2"), "report")
    plain = Scene(report={0: b"\2", 0x188: bytes(3)}).unsigned()
    assert snp_report.parse(plain, "report").fms == b""


@settings(deadline=None, max_examples=300)
@given(st.integers(0, snp_report.SIZE - 1), st.binary(min_size=1, max_size=64))
def test_a_report_is_read_or_refused(offset: int, value: bytes) -> None:
    data = changed(offset, value)[: snp_report.SIZE]
    try:
        found = snp_report.parse(data, "report")
    except TamperingError:
        return
    assert found.signed == data[: snp_report.SIGNED]
    assert data == found.signed + found.signature + bytes(snp_report.SIZE - 0x330)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=1300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(TamperingError):
        snp_report.parse(data, "report")


@pytest.mark.parametrize(
    ("fms", "product"),
    [
        ("190001", "Milan"), ("190f01", "Milan"), ("191001", "Genoa"), ("191f01", "Genoa"), ("19a001", "Genoa"),
        ("19af02", "Genoa"), ("192001", ""), ("19b001", ""), ("199f01", ""), ("1a0201", "Turin"), ("1a1100", "Turin"),
        ("170101", ""), ("1b0201", ""), ("000000", ""),
    ],
)  # fmt: skip
def test_products(fms: str, product: str) -> None:
    assert snp_report.product(bytes.fromhex(fms)) == product


def test_tcb_versions_are_taken_apart() -> None:
    milan = snp_report.components(bytes.fromhex("04010000000018db"), "Milan", "tcb")
    assert milan == {"bootloader": 4, "tee": 1, "snp": 24, "microcode": 219}
    turin = snp_report.components(bytes.fromhex("0102030400000051"), "Turin", "tcb")
    assert turin == {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 81}
    for product, places in (("Milan", (2, 3, 4, 5)), ("Genoa", (2, 3, 4, 5)), ("Turin", (4, 5, 6))):
        for at in places:
            with pytest.raises(TamperingError):
                snp_report.components(bytes(at) + b"\1" + bytes(7 - at), product, "tcb")


LEAVES: dict[str, dict[str, bytes | None]] = {
    "wide component": {"3.1": b"\x02\x02\x01\x00"},
    "negative component": {"3.1": b"\x02\x01\x80"},
    "long form": {"3.1": b"\x02\x02\x00\x04"},
    "empty component": {"3.1": b"\x02\x00"},
    "no number": {"3.8": b"\x04\x01\x04"},
    "more after it": {"3.8": b"\x02\x01\x04\x00"},
    "spare component": {"3.4": b"\x02\x01\x01"},
    "product is no text": {"2": b"\x0c\x05Milan"},
    "no product": {"2": None},
    "provider is no text": {"5": b"\x04\x02ab"},
    "critical": {"99": b"\x05\x00\x00"},
}


@pytest.mark.parametrize("name", LEAVES)
def test_other_certificates_of_chips_are_refused(name: str) -> None:
    data = Scene(extensions=LEAVES[name]).certificates()[0]
    with pytest.raises(TamperingError):
        snp_certificates.load_leaf(data, "leaf")


def test_a_serial_number_of_zero_is_genuine() -> None:
    data = Scene().certificates()[0]
    assert data[8:16].hex() == "a003020102020100"
    leaf = snp_certificates.load_leaf(data, "leaf")
    assert leaf.data == data
    assert leaf.hardware_id == CHIP
    assert snp_certificates.load_leaf(Scene(leaf={"serial": 2}).certificates()[0], "leaf").tcb == leaf.tcb


def test_the_chips_identity_may_be_wrapped() -> None:
    wrapped = Scene(extensions={"4": b"\x04\x40" + CHIP}).certificates()[0]
    assert snp_certificates.load_leaf(wrapped, "leaf").hardware_id == CHIP
    wrong = Scene(extensions={"4": b"\x04\x3f" + CHIP}).certificates()[0]
    assert snp_certificates.load_leaf(wrong, "leaf").hardware_id != CHIP


def test_keys_of_another_kind_are_refused() -> None:
    leaf, middle, _ = Scene().certificates()
    with pytest.raises(TamperingError):
        snp_certificates.load_leaf(middle, "leaf")
    with pytest.raises(TamperingError):
        snp_certificates.load_authority(leaf, "authority")
    with pytest.raises(TamperingError):
        snp_certificates.load_authority(middle + b"\0", "authority")
    with pytest.raises(TamperingError):
        snp_certificates.load_leaf(leaf + b"\0", "leaf")
    p256 = Scene(leaf={"key": private("p256").public_key()})
    with pytest.raises(TamperingError):
        snp_certificates.load_leaf(p256.certificates()[0], "leaf")


def test_pem_is_read_strictly() -> None:
    chain = Scene().certificates()
    text = b"".join(_pem(one) for one in chain)
    assert snp_certificates.from_pem(text, "chain") == chain
    assert snp_certificates.from_pem(text.replace(b"\n", b"\r\n"), "chain") == chain
    for wrong in (
        b"", b"hello", b"hello\n" + text, text + b"more", text[:-30], text.replace(b"MII", b"M!I", 1), bytes(70_000),
        text.replace(b"-----END", b"----END", 1),
    ):  # fmt: skip
        with pytest.raises(TamperingError):
            snp_certificates.from_pem(wrong, "chain")


def _pem(data: bytes) -> bytes:
    body = base64.b64encode(data)
    lines = b"\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=8), st.sampled_from(["2", "3.1", "3.8", "4", "5"]))
def test_any_value_of_an_extension_is_read_or_refused(value: bytes, part: str) -> None:
    extension = Scene(extensions={part: value}).leaf_extensions()
    made = certificate("SEV-Milan", "SEV-VCEK", 41, chip_key().public_key(), extension)
    try:
        leaf = snp_certificates.load_leaf(made, "leaf")
    except TamperingError:
        return
    assert all(0 <= level <= 255 for level in leaf.tcb.values())
    assert part not in {"3.1", "3.8"} or value == integer(leaf.tcb["bootloader" if part == "3.1" else "microcode"])
