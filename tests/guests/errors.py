# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a test machine; each message carries what a person needs to see the cause.

GuestError
├── ToolError            a program on the host (mkfs, cryptsetup, …) ended badly
├── MachineEndedError    QEMU ended while somebody waited
├── NotInTimeError       something awaited did not happen (also a TimeoutError)
├── QmpError             QEMU refused a command
└── CommandError         a command inside the guest ended with another code than 0
"""


class GuestError(Exception):
    """Base of everything this library raises on purpose."""


class ToolError(GuestError):
    """A program on the host failed, or took longer than it may."""


class MachineEndedError(GuestError):
    """The machine ended while somebody waited for it."""


class NotInTimeError(GuestError, TimeoutError):
    """Something that was waited for did not happen within its time."""


class QmpError(GuestError):
    """QEMU answered a QMP command with an error."""


class CommandError(GuestError):
    """A command in the guest ended with a code that the caller did not allow."""
