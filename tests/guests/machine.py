# SPDX-License-Identifier: Apache-2.0
"""One machine, from power on to power off.

    with Machine(kernel=tree.kernel, initrd=tree.initrd, cmdline=kernel_cmdline(root.device), disks=[root]) as vm:
        vm.wait_console("login:")
        assert vm.run("uname -r").text

Leaving the block is a power cut. Every wait is bounded, and every time-out shows what the console said last.
"""

import contextlib
import os
import re
import shlex
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from guests import hardware
from guests.agent import Agent, Finished, Job
from guests.console import Console
from guests.errors import MachineEndedError, NotInTimeError
from guests.hardware import Disk, Network
from guests.places import run_directory
from guests.qmp import Qmp
from guests.swtpm import RunningTpm, TpmState, tpm_for_machine
from guests.tools import Companion, companion
from guests.turns import a_turn

MEBIBYTE = 1 << 20
MOST_MEMORY = 2048  # MiB; above, RAM is no longer one piece from address 0 on
BOOT_SECONDS = 300.0  # 30 on an idle machine; others may be at work beside us
COMMAND_SECONDS = 60.0
PLUG_SECONDS = 30.0
OFF_SECONDS = 90.0
FREEZE_SECONDS = 120.0


class Machine:
    """A virtual machine; used as a context manager, once. To boot again, make another one on the same disks."""

    def __init__(
        self,
        *,
        kernel: str | None = None,
        initrd: str | None = None,
        cmdline: str = "",
        disks: Sequence[Disk] = (),
        tpm: TpmState | None = None,
        ovmf: bool = False,
        ovmf_variables: str | None = None,
        memory: int = 1024,
        cpu: str = hardware.CPU,
        smbios: Sequence[str] = (),
        network: Network | None = None,
        clock: str = "utc",
        reboots: bool = False,
        thaw: str | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        """Describe a machine; nothing starts yet.

        Args:
            kernel: started directly, with `initrd` and `cmdline`; without it, the firmware boots from the disks.
            disks: in order; serial numbers name them in the guest.
            tpm: a chip on the CRB interface.
            ovmf: UEFI firmware that measures what it starts, in place of SeaBIOS.
            ovmf_variables: a variable store that outlives the boot; by default an empty one for this boot only.
            memory: MiB.
            smbios: values of `-smbios`, such as `type=11,value=…`.
            clock: `-rtc base=`: "utc" or a time like 2031-01-01T00:00:00.
            reboots: a reset starts the machine again, instead of ending it.
            thaw: go on from a file written by `freeze` instead of booting, on the same hardware and disk contents.
            extra: more words for QEMU.
        """
        if not 0 < memory <= MOST_MEMORY:
            raise ValueError(f"memory is up to {MOST_MEMORY} MiB, not {memory}")
        self.disks = tuple(disks)
        self.memory = memory
        self._tpm_state, self._ovmf, self._variables = tpm, ovmf or ovmf_variables is not None, ovmf_variables
        self._slots = {f"slot{number}": "" for number in range(hardware.HOTPLUG_SLOTS)}
        self._plugged: dict[str, Disk] = {}
        self._resources = contextlib.ExitStack()
        self._qemu: Companion | None = None
        self._up = False
        self._tpm: RunningTpm | None = None
        boot = [word for name, value in (("-kernel", kernel), ("-initrd", initrd)) if value for word in (name, value)]
        self._argv = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-machine", "q35,sata=off,smbus=off", "-accel", hardware.EMULATION),
            *("-cpu", cpu, "-m", f"{memory}M", "-rtc", f"base={clock}"),
            *([] if reboots else ["-no-reboot"]),
            *(boot if kernel is None else [*boot, "-append", cmdline]),
            *(word for value in smbios for word in ("-smbios", value)),
            *(network.arguments() if network else ["-nic", "none"]),
            *("-device", "vmgenid,guid=auto"),  # a thawed kernel draws other random numbers than its twins
            *([] if thaw is None else ["-incoming", f"exec:cat < {shlex.quote(os.path.abspath(thaw))}"]),
            *extra,
        ]
        self._thawed = thaw is not None

    def __enter__(self) -> Self:
        """Power on."""
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut the power and leave nothing behind; what went wrong in the block is told what the console said."""
        if error is not None and "--- end of the console" not in str(error):
            error.add_note(self._console.tail().removeprefix("; "))
        self._end()

    def _start(self) -> None:
        keep = self._resources
        keep.enter_context(a_turn())
        directory = keep.enter_context(run_directory())
        ends = {name: socket.socketpair() for name in ("console", "qmp", "agent")}
        ours = {name: keep.enter_context(pair[0]) for name, pair in ends.items()}
        theirs = {name: keep.enter_context(pair[1]) for name, pair in ends.items()}
        descriptors = {name: end.fileno() for name, end in theirs.items()}
        argv = [*self._argv, *hardware.firmware(self._variable_store(directory)), *hardware.channels(descriptors)]
        if self._tpm_state is not None:
            self._tpm, line = keep.enter_context(tpm_for_machine(self._tpm_state))
            theirs["tpm"] = line
            argv += ["-chardev", f"socket,id=tpm,fd={line.fileno()}"]
            argv += ["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]
        argv += hardware.disks_and_slots(self.disks)
        log = os.path.join(directory, "qemu.log")
        passed = [end.fileno() for end in theirs.values()]
        self._qemu = keep.enter_context(companion(argv, log=log, keep_open=passed))
        for end in theirs.values():
            end.close()
        self._console = keep.enter_context(contextlib.closing(Console(ours["console"], self._qemu_said)))
        self._qmp = keep.enter_context(contextlib.closing(Qmp(ours["qmp"], self._explain)))
        self._agent = keep.enter_context(contextlib.closing(Agent(ours["agent"], self._explain)))
        keep.callback(self._qemu.kill)  # first of all, so that the channels end by themselves
        self._qmp.call("qmp_capabilities", {})
        if self._thawed:
            self._qmp.wait_event("RESUME", timeout=FREEZE_SECONDS)
            self.run(["date", "--utc", "--set", f"@{time.time():.3f}"])

    def _variable_store(self, directory: str) -> str | None:
        if not self._ovmf or self._variables is not None:
            return self._variables
        return shutil.copy(hardware.OVMF_VARS, os.path.join(directory, "variables.fd"))

    def _end(self) -> None:
        self._resources.close()

    # The console, as a person sees it.

    def wait_console(self, pattern: str, timeout: float = BOOT_SECONDS, *, from_start: bool = False) -> re.Match[str]:
        """Wait for a regular expression behind the last match; the text before it is passed over for good."""
        return self._console.wait(pattern, timeout, from_start=from_start)

    def time_on_console(self, pattern: str, timeout: float = BOOT_SECONDS) -> float:
        """Wait as `wait_console` does; give the host's monotonic time at which the end of the match was there."""
        return self._console.when(self._console.wait(pattern, timeout).end() - 1)

    def type(self, text: str) -> None:
        r"""Type on the serial terminal; `\n` is the return key."""
        self._console.type(text)

    def console_text(self) -> str:
        """Everything the console showed, as plain text."""
        return self._console.text

    # Commands and files in the running guest.

    def wait_agent(self, timeout: float = BOOT_SECONDS) -> None:
        """Wait until commands are answered: local file systems are there, services may not be."""
        if not self._up:
            self._agent.ping(timeout=timeout)
            self._up = True

    def wait_boot(self, timeout: float = BOOT_SECONDS) -> str:
        """Wait until nothing more is being started; "running", or "degraded" when a unit failed."""
        self.wait_agent(timeout)
        return self.run("systemctl is-system-running --wait", timeout=timeout, check=False).text

    def start(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = COMMAND_SECONDS,
        data: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Job:
        """Start a command and go on; `Job.wait` gives its end. Text is for `sh -c`, a sequence is run as it is."""
        self.wait_agent()
        return self._agent.start(command, timeout=timeout, data=data, env=env)

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = COMMAND_SECONDS,
        check: bool = True,
        data: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run a command to its end, once the agent is up; with `check`, another code than 0 raises."""
        return self.start(command, timeout=timeout, data=data, env=env).wait(check=check)

    def put(self, path: str, content: bytes, *, mode: int = 0o644, timeout: float = COMMAND_SECONDS) -> None:
        """Write a file in the guest."""
        self.wait_agent()
        self._agent.put(path, content, mode=mode, timeout=timeout)

    def get(self, path: str, *, timeout: float = COMMAND_SECONDS) -> bytes:
        """Read a file in the guest."""
        self.wait_agent()
        return self._agent.get(path, timeout=timeout)

    # The hardware, as a hypervisor sees it.

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command (write `_` for `-` in argument names)."""
        return self._qmp.call(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    @property
    def tpm(self) -> RunningTpm:
        """The chip of this boot, to make it silent or to take it away."""
        assert self._tpm is not None, "this machine has no TPM"
        return self._tpm

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._qemu is not None, "the machine was not started"
        return self._qemu.pid

    def plug(self, disk: Disk) -> None:
        """Attach a disk to the running machine; the guest's udev sees it soon after (`udevadm wait`)."""
        slot = next((name for name, used_by in self._slots.items() if not used_by), None)
        if disk.bus == "virtio" and slot is None:
            raise ValueError(f"all {len(self._slots)} hot-plug slots are taken")
        self._qmp.call("blockdev-add", disk.blockdev())
        self._qmp.call("device_add", disk.attachment(slot))
        if disk.bus == "virtio" and slot is not None:
            self._slots[slot] = disk.serial
        self._plugged[disk.serial] = disk

    def unplug(self, serial: str, *, timeout: float = PLUG_SECONDS) -> None:
        """Take a plugged disk away; the guest has let it go when this returns.

        Its udev too: what it still had to do for this disk would be done to the next one of the same name (seen: the
        link of the one before led to a new disk, counted as ready, and went while that was being written to).
        """
        disk = self._plugged.pop(serial)
        kernel_knows = "/sys" + self.run(["udevadm", "info", "--query=path", f"--name={disk.device}"]).text
        since = self._qmp.events
        self._qmp.call("device_del", {"id": disk.name})
        self._qmp.wait_event("DEVICE_DELETED", timeout=timeout, since=since, device=disk.name)
        self._qmp.call("blockdev-del", {"node-name": disk.node})
        self.run(f"udevadm wait --removed --timeout={timeout:g} {kernel_knows} && udevadm settle --timeout={timeout:g}")
        self._slots = {slot: "" if used_by == serial else used_by for slot, used_by in self._slots.items()}

    def dump_memory(self, path: str) -> None:
        """Write all RAM to a file, with the machine standing still (see memory.py for searching it)."""
        where = os.path.abspath(path)
        self.qmp("stop")
        try:
            self.qmp("pmemsave", val=0, size=self.memory * MEBIBYTE, filename=where)
        finally:
            self.qmp("cont")

    # Ends.

    def freeze(self, path: str) -> None:
        """Write the running machine to a file and end it; its disks' images are complete then (see `thaw`)."""
        self.qmp("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.qmp("migrate-set-parameters", max_bandwidth=1 << 40)
        self.qmp("migrate", uri=f"exec:cat > {shlex.quote(os.path.abspath(path))}")
        self._qmp.wait_event("MIGRATION", timeout=FREEZE_SECONDS, status="completed")
        self.qmp("quit")
        self.wait_off()

    def kill(self) -> None:
        """Cut the power now: QEMU gets SIGKILL and does nothing more to any disk."""
        assert self._qemu is not None, "the machine was not started"
        self._qemu.kill()

    def wait_off(self, timeout: float = OFF_SECONDS) -> None:
        """Wait until the machine is off (or was reset, if it does not reboot)."""
        assert self._qemu is not None, "the machine was not started"
        try:
            code = self._qemu.wait(timeout)
        except TimeoutError:
            raise NotInTimeError(f"the machine is not off after {timeout:g} s{self._explain()}") from None
        if code != 0:
            raise MachineEndedError(f"QEMU ended with {code}{self._explain()}")

    def powerdown(self, timeout: float = OFF_SECONDS) -> None:
        """Press the power button and wait until the machine is off."""
        self.qmp("system_powerdown")
        self.wait_off(timeout)

    def _explain(self) -> str:
        return self._console.tail()

    def _qemu_said(self) -> str:
        if self._qemu is None:
            return ""
        code = self._qemu.exit_code
        state = "QEMU runs" if code is None else f"QEMU ended with {code}"
        said = self._qemu.said()
        return f"\n--- {state}{'; it said:' if said else ''}\n{said}".rstrip()
