# SPDX-License-Identifier: Apache-2.0
"""`keyquorum machine renew`: when the boot image is rebuilt, and what a machine without custodians is told."""

from __future__ import annotations

from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from keyquorum.cli import machine as command
from keyquorum.cli import shell
from keyquorum.enroll import machine_file
from keyquorum.errors import KeyquorumError
from keyquorum.linux import boot_image
from unit.model.objects import VOLUME_SET

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = Namespace(action="renew", json=False)


class Site:
    """A machine whose one volume opens at boot; a renewal renews what the test says."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.path, self.rebuilt, self.broken = directory / "machine.json", 0, False
        self.renewed: tuple[str, ...] = ("eu-1.example",)
        self.path.write_text("{}")
        volumes = directory / "volumes"
        volumes.mkdir()
        (volumes / f"{VOLUME_SET.volume}.json").touch()
        self.kind, self.at_boot = "custodian", True
        machine = SimpleNamespace(
            tuning=SimpleNamespace(machine=str(self.path)),
            settings=SimpleNamespace(volumes=str(volumes)),
            tell=lambda _line: None,
        )
        patch.setattr(shell, "machine", lambda _arguments: machine)
        patch.setattr(command, "renew_machine", self._renew)
        patch.setattr(boot_image, "opens_at_boot", lambda _uuid: self.at_boot)
        patch.setattr(boot_image, "rebuild", self._rebuild)
        patch.setattr(command, "copy_header", self._header)
        patch.setattr(command, "verify_enrolment", self._enrolment)

    def _renew(self, _machine: Any) -> tuple[tuple[str, ...], tuple[KeyquorumError, ...]]:
        if self.renewed:
            machine_file.note_image(str(self.path))
        return self.renewed, ()

    def _rebuild(self) -> None:
        if self.broken:
            raise KeyquorumError("the initramfs was not rebuilt: no space left on device")
        self.rebuilt += 1

    @contextmanager
    def _header(self, path: str) -> Iterator[str]:
        assert path == f"/dev/disk/by-uuid/{VOLUME_SET.volume}"
        if not self.kind:
            raise KeyquorumError("cannot be read")
        yield path

    def _enrolment(self, _header: str, _volumes: str) -> Any:
        first = VOLUME_SET.placements[0].with_(kind=self.kind)
        return SimpleNamespace(volume_set=VOLUME_SET.with_(placements=(first, *VOLUME_SET.placements[1:])))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_a_rebuild_that_failed_is_done_by_the_next_renewal(site: Site) -> None:
    site.broken = True
    with pytest.raises(KeyquorumError, match="no space"):
        command.run(WORDS)
    site.broken, site.renewed = False, ()
    assert command.run(WORDS) == 0
    assert site.rebuilt == 1
    assert command.run(WORDS) == 0
    assert site.rebuilt == 1, "once is enough"


@pytest.mark.parametrize(("kind", "rebuilt"), [("custodian", 1), ("enclave", 1), ("disk", 0), ("", 1)])
def test_only_an_image_that_asks_custodians_is_rebuilt(site: Site, kind: str, rebuilt: int) -> None:
    """A volume that cannot be read ("") may ask some."""
    site.kind = kind
    assert command.run(WORDS) == 0
    assert site.rebuilt == rebuilt
    assert not machine_file.image_due(str(site.path))


def test_no_image_for_volumes_that_open_later(site: Site) -> None:
    site.at_boot = False
    assert command.run(WORDS) == 0
    assert site.rebuilt == 0


def test_a_machine_that_is_enrolled_nowhere_has_nothing_to_renew(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """The timer runs on every machine, and the file may be anywhere."""
    site.path.unlink()
    site.renewed = ("nobody asked",)
    assert command.run(WORDS) == 0
    assert capsys.readouterr().out == "this machine is enrolled at no custodian\n"
    assert site.rebuilt == 0
