# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: one command, its time and processor time, and what it leaves running. Order and answer are JSON.

Wall time is from before the start to the end of the command. User and system time are of the command and of the
children that it waited for.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

GRACE = 1.0  # seconds after the end, for children that are on their way out
_OF_THE_SYSTEM = ("systemd", "(udev-worker)", "(sd-")


def main() -> None:
    """Do what standard input says."""
    order = json.load(sys.stdin)
    if order.get("cold"):
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
    subprocess.run(["udevadm", "settle"], check=True)
    before = processes()
    answer = measured(order["argv"], order.get("descriptors", {}))
    time.sleep(GRACE)
    left = sorted(name for pid, name in processes().items() if pid not in before)
    print(json.dumps(answer | {"left": left}))


def measured(argv: list[str], descriptors: dict[str, str]) -> dict[str, Any]:
    """Run to the end; `descriptors` are files to be opened as numbers for the command."""
    log = "/run/bench.log"
    opened = [(os.POSIX_SPAWN_OPEN, int(number), path, os.O_RDONLY, 0) for number, path in descriptors.items()]
    output = [(os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    start = time.monotonic()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[*output, *opened])
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - start
    with open(log, encoding="utf-8", errors="replace") as file:
        said = file.read()
    code = os.waitstatus_to_exitcode(status)
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss,
        "code": code,
        "said": said[-4000:],
    }


def processes() -> dict[int, str]:
    """All that runs a program, without what belongs to udev and systemd."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        if parent != 2 and int(entry) != 2 and not name.startswith(_OF_THE_SYSTEM):  # 2 starts the kernel's threads
            found[int(entry)] = name
    return found


if __name__ == "__main__":
    main()
