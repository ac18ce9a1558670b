# SPDX-License-Identifier: Apache-2.0
"""A machine whose initramfs opens two enrolled volumes: a root by what people know, a second one by devices.

Both are named in crypttab by the place of their disk, not by UUID, so that whatever lies there is found.
"""

import re

from boots.enrolled import TWO_OF_THREE, Enrolled, Recipe, enrolled_root
from guests.luks_image import FAST_PBKDF

SECOND = "second"
SECOND_UUID = "7365636f-6e64-4f6e-a576-6f6c756d6532"
SECOND_PROMPT = f"Please unlock disk {SECOND}"
PIN = "24-horses"
PHRASE = "battery staple"

# Any two of a chip with a PIN, a passphrase (cheap to try: emulated machines are slow) and a sheet.
_PEOPLE = """\
version = 1
threshold = 2
of = ["chip", "phrase", "paper"]
[holder.chip]
kind = "tpm"
pcrs = [7]
pin = true
[holder.phrase]
kind = "passphrase"
memory = 8
passes = 1
[holder.paper]
kind = "sheet"
"""
_DEVICE = f"/dev/disk/by-id/virtio-{SECOND}"
_PREPARE = f"""\
set -e
umask 077
cd /root
printf %s '{PIN}' > pin
printf %s '{PHRASE}' > phrase
printf %s 'second secret' > second.key
cat > second.toml <<'END'
{TWO_OF_THREE}END
cryptsetup luksFormat --batch-mode --type luks2 {" ".join(FAST_PBKDF)} --uuid {SECOND_UUID} --key-file second.key {_DEVICE}
sed -i 's|UUID=[^ ]*|/dev/disk/by-id/virtio-root|' /etc/crypttab
echo '{SECOND} {_DEVICE} none luks,initramfs,nofail' >> /etc/crypttab
keyquorum enroll {_DEVICE} --policy second.toml --key-file second.key --yes --no-boot-image
"""
_ANSWERS = "--sheet-dir /root --pin-fd chip=3 --pin-fd phrase=4 3</root/pin 4</root/phrase"
# The sheet goes where the host reads it: as long as the root is closed, a test could not.
_SHOW_SHEET = "&& cat /root/sheet-1.txt >&2"

TWO_VOLUMES = Recipe(
    "two-volumes", _PEOPLE, options=f"{_ANSWERS} {_SHOW_SHEET}", prepare=_PREPARE, more_disks=(SECOND,)
)


def two_volumes() -> Enrolled:
    """The machine, enrolled."""
    return enrolled_root(TWO_VOLUMES)


def sheet(enrolled: Enrolled) -> list[str]:
    """The five lines of the root's recovery sheet."""
    with open(enrolled.path("enroll.log"), encoding="utf-8") as file:
        lines = re.findall(r"^ *line \d +(\S+)$", file.read(), re.MULTILINE)
    assert len(lines) == 5, lines
    return lines
