# SPDX-License-Identifier: Apache-2.0
"""Devices of confidential guests, played by files and functions: what is asked, and what becomes of each answer."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyquorum.errors import TamperingError, UnavailableError
from keyquorum.evidence import bundle, trial
from keyquorum.evidence.bundle import Bundle
from keyquorum.evidence.result import Status
from keyquorum.linux import attester, nitro_module, sev_guest
from keyquorum.linux.configfs_tsm import ConfigfsTsm
from keyquorum.linux.nitro_module import NitroModule
from keyquorum.linux.sev_guest import SevGuest
from unit.evidence.bundle_maker import sample
from unit.evidence.nitro_maker import encode
from unit.evidence.test_collect_formats import VCEK, WHOLE, table

NONCE = sample("snp").nonce
REPORT = sample("snp").bundle.part("report")


class Kernel:
    """Configfs as the kernel plays it: files that are there with their directory, each access served in turn.

    They are named pipes, so that whoever reads or writes waits for the other side: no time decides anything.
    """

    def __init__(self, base: Path, answers: dict[str, bytes], generations: list[int]) -> None:
        self.base, self.answers, self.generations = base, answers, generations
        self.asked: list[bytes] = []
        self.made: list[str] = []
        self.removed: list[str] = []
        self._served: list[threading.Thread] = []

    def make(self, directory: str) -> None:
        os.mkdir(directory)
        self.made.append(directory)
        for name in ("generation", "inblob", *self.answers):
            os.mkfifo(f"{directory}/{name}")
        turn = threading.Thread(target=self._serve, args=(directory, self.generations[:2]), daemon=True)
        del self.generations[:2]
        turn.start()
        self._served.append(turn)

    def _serve(self, directory: str, generations: list[int]) -> None:
        try:
            self._answer(Path(directory), generations)
        except OSError:  # whoever asked gave up, and the directory is gone
            return

    def _answer(self, directory: Path, generations: list[int]) -> None:
        (directory / "generation").write_bytes(b"%d\n" % generations[0])
        self.asked.append((directory / "inblob").read_bytes())
        for name, data in self.answers.items():
            (directory / name).write_bytes(data)
        (directory / "generation").write_bytes(b"%d\n" % generations[1])

    def remove(self, directory: str) -> None:
        self.removed.append(directory)
        shutil.rmtree(directory)

    def attester(self, log: str = "/nowhere") -> ConfigfsTsm:
        return ConfigfsTsm(str(self.base), log, self.make, self.remove)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    made = []

    def make(answers: dict[str, bytes], *generations: int) -> Kernel:
        made.append(Kernel(tmp_path, answers, list(generations)))
        return made[-1]

    yield make
    for one in made:
        assert one.removed == one.made
        assert not list(tmp_path.glob("keyquorum-*"))


SNP = {"provider": b"sev_guest\n", "outblob": REPORT, "auxblob": WHOLE}


def test_a_report_with_its_certificates(kernel: Callable[..., Kernel]) -> None:
    played = kernel(SNP, 7, 8)
    found = played.attester().collect(NONCE)
    assert found == sample("snp").bundle
    assert played.asked == [NONCE]
    assert trial.judge(found, sample("snp").known()).status is Status.TRUSTED


@pytest.mark.parametrize("table", [b"", b"\x01" * 30, bytes(4096)])
def test_certificates_that_are_not_there_or_not_well_are_left_out(kernel: Callable[..., Kernel], table: bytes) -> None:
    found = kernel(SNP | {"auxblob": table}, 7, 8).attester().collect(NONCE)
    assert found.parts == {"report": REPORT}


def test_a_leaf_alone_is_given_and_so_is_a_list(kernel: Callable[..., Kernel]) -> None:
    """Of a provider's key only the host has the certificate; what is above it AMD gives to everybody."""
    leaf = bundle.split_certificates(sample("snp").bundle.part("certificates"))[0]
    given = table((VCEK, leaf), ("92f81bc358114d3d97ffd19f88dc67ea", b"crl"))
    found = kernel(SNP | {"auxblob": given}, 7, 8).attester().collect(NONCE)
    assert found.parts == {"report": REPORT, "certificates": leaf, "crl": b"crl"}


def test_a_quote_with_its_log(kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    quote = sample("tdx").bundle.part("quote")
    answers = {"provider": b"tdx_guest\n", "outblob": quote}
    assert kernel(answers, 1, 2).attester().collect(bytes(64)) == Bundle(technology="tdx", parts={"quote": quote})
    log = tmp_path / "CCEL"
    log.write_bytes(b"log")
    assert kernel(answers, 1, 2).attester(str(log)).collect(bytes(64)).part("log") == b"log"


def test_an_answer_to_somebody_elses_question_is_asked_for_anew(kernel: Callable[..., Kernel]) -> None:
    played = kernel(SNP, 7, 9, 1, 2)
    assert played.attester().collect(NONCE) == sample("snp").bundle
    assert (len(played.made), played.asked) == (2, [NONCE, NONCE])
    busy = kernel(SNP, 1, 3, 1, 3, 1, 1)
    with pytest.raises(UnavailableError, match="another process keeps writing"):
        busy.attester().collect(NONCE)
    assert len(busy.made) == 3


def test_what_the_kernel_may_say_otherwise(kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="is not known here"):
        kernel(SNP | {"provider": b"arm_cca_guest\n"}, 7, 8).attester().collect(NONCE)
    with pytest.raises(UnavailableError, match="carry 64 bytes, and not 32"):
        ConfigfsTsm(str(tmp_path)).collect(bytes(32))
    absent = ConfigfsTsm(str(tmp_path / "none"))
    assert not absent.present()
    with pytest.raises(UnavailableError, match="No such file"):
        absent.collect(NONCE)

    def refuse(_directory: str) -> None:
        raise OSError(errno.ENXIO, "No such device or address")

    with pytest.raises(UnavailableError, match="No such device"):
        ConfigfsTsm(str(tmp_path), make=refuse).collect(NONCE)

    def empty(directory: str) -> None:
        os.mkdir(directory)

    with pytest.raises(UnavailableError, match="No such file"):
        ConfigfsTsm(str(tmp_path), make=empty).collect(NONCE)
    assert not list(tmp_path.glob("keyquorum-*"))


# /dev/sev-guest


class Firmware:
    """The driver and the firmware behind it: reads what lies at the addresses, as the kernel would."""

    def __init__(self, table: bytes = WHOLE, status: int = 0, refusal: int = 0) -> None:
        self.table, self.status, self.refusal = table, status, refusal
        self.calls: list[tuple[int, bytes]] = []

    def ioctl(self, _descriptor: int, number: int, call: bytearray) -> int:
        version, request, answer, _ = sev_guest.CALL.unpack(call)
        assert version == 1
        size = sev_guest.EXTENDED.size if number == sev_guest.GET_EXT_REPORT else sev_guest.REQUEST.size
        asked = ctypes.string_at(request, size)
        self.calls.append((number, asked[: sev_guest.REQUEST.size]))
        if number == sev_guest.GET_EXT_REPORT:
            if self.refusal:
                raise OSError(self.refusal, os.strerror(self.refusal))
            _, address, room = sev_guest.EXTENDED.unpack(asked)
            assert room == sev_guest.TABLE_SIZE
            ctypes.memmove(address, self.table, len(self.table))
        response = self.status.to_bytes(4, "little") + len(REPORT).to_bytes(4, "little") + bytes(24) + REPORT
        ctypes.memmove(answer, response, len(response))
        return 0


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "device"
    path.touch()
    return str(path)


def test_sev_guest_gives_report_and_certificates(device: str) -> None:
    firmware = Firmware()
    guest = SevGuest(device, firmware.ioctl)
    assert guest.present()
    assert guest.collect(NONCE) == sample("snp").bundle
    assert firmware.calls == [(0xC0205302, NONCE + bytes(32))]


def test_sev_guest_without_certificates(device: str) -> None:
    firmware = Firmware(refusal=errno.EIO)
    assert SevGuest(device, firmware.ioctl).collect(NONCE).parts == {"report": REPORT}
    assert [number for number, _ in firmware.calls] == [0xC0205302, 0xC0205300]
    assert SevGuest(device, Firmware(table=b"").ioctl).collect(NONCE).parts == {"report": REPORT}


def test_sev_guest_that_says_no(device: str) -> None:
    for firmware in (Firmware(status=0x16), Firmware(refusal=errno.EBADF)):
        with pytest.raises(UnavailableError):
            SevGuest(device, firmware.ioctl).collect(NONCE)
    with pytest.raises(UnavailableError, match="cannot be opened"):
        SevGuest(f"{device}.none").collect(NONCE)
    with pytest.raises(UnavailableError, match="64 bytes"):
        SevGuest(device, Firmware().ioctl).collect(b"")
    with pytest.raises(UnavailableError, match="gives no report"):
        SevGuest(device).collect(NONCE)  # an ordinary file has no such call


def test_the_structures_have_the_sizes_of_the_kernels() -> None:
    assert (sev_guest.REQUEST.size, sev_guest.EXTENDED.size, sev_guest.CALL.size) == (96, 112, 32)
    assert nitro_module.MESSAGE.size == 32
    for number, size in ((sev_guest.GET_REPORT, 32), (sev_guest.GET_EXT_REPORT, 32), (nitro_module.RAW, 32)):
        assert (number >> 30, number >> 16 & 0x3FFF) == (3, size)


# /dev/nsm


def module(answer: bytes, size: int | None = None) -> tuple[Callable[[int, int, bytearray], int], list[bytes]]:
    asked = []

    def ioctl(_descriptor: int, number: int, message: bytearray) -> int:
        assert number == 0xC0200A00
        request, length, room, most = nitro_module.MESSAGE.unpack(message)
        asked.append(ctypes.string_at(request, length))
        assert len(answer) <= most
        ctypes.memmove(room, answer, len(answer))
        nitro_module.MESSAGE.pack_into(message, 0, request, length, room, len(answer) if size is None else size)
        return 0

    return ioctl, asked


def test_a_document_of_an_enclave(device: str) -> None:
    good = sample("nitro")
    ioctl, asked = module(encode({"Attestation": {"document": good.bundle.part("document")}}))
    assert NitroModule(device, ioctl).collect(good.nonce) == good.bundle
    assert asked == [encode({"Attestation": {"user_data": None, "nonce": good.nonce, "public_key": None}})]


def test_an_enclave_that_gives_none(device: str) -> None:
    with pytest.raises(UnavailableError, match="InputTooLarge"):
        NitroModule(device, module(encode({"Error": "InputTooLarge"}))[0]).collect(NONCE)
    with pytest.raises(UnavailableError, match="answers with 0 bytes"):
        NitroModule(device, module(b"x", 0)[0]).collect(NONCE)
    with pytest.raises(UnavailableError, match="answers with 99999 bytes"):
        NitroModule(device, module(b"x", 99999)[0]).collect(NONCE)
    with pytest.raises(TamperingError):
        NitroModule(device, module(b"x")[0]).collect(NONCE)
    with pytest.raises(UnavailableError):
        NitroModule(device).collect(NONCE)
    with pytest.raises(UnavailableError, match="cannot be opened"):
        NitroModule(f"{device}.none").collect(NONCE)


# Which of them


class Played:
    """A device that is there or not, and answers or not."""

    def __init__(self, *, there: bool = True, said: str = "") -> None:
        self.there, self.said = there, said

    def present(self) -> bool:
        return self.there

    def collect(self, nonce: bytes) -> Bundle:
        if self.said:
            raise UnavailableError(self.said)
        return Bundle(technology="nitro", parts={"document": nonce})


def test_the_first_that_answers_is_taken() -> None:
    known = {"a": Played(there=False), "b": Played(said="busy"), "c": Played(), "d": Played(said="never asked")}
    assert attester.collect_first(known, b"n").part("document") == b"n"
    with pytest.raises(UnavailableError, match=r"^b: busy; d: never asked$"):
        attester.collect_first({name: known[name] for name in "abd"}, b"n")
    with pytest.raises(UnavailableError, match="this machine has none of a"):
        attester.collect_first({"a": known["a"]}, b"n")


def test_the_devices_of_a_machine_and_their_order() -> None:
    assert list(attester.devices()) == ["tsm", "sev-guest", "nitro"]
