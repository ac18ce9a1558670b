# SPDX-License-Identifier: Apache-2.0
"""A person at the serial terminal: logs in as root, types commands, answers what is asked, and reads what comes."""

import re

from guests.machine import Machine

HOST = "guest"
COMMAND_SECONDS = 600.0

# What a terminal shows when it is somebody's turn to type.
_TURN = (
    rf"(?P<shell>^root@{HOST}:[^#\n]*# $)|(?P<more>^> $)|(?P<yes>^Type YES [^\n]*: $)|(?P<secret>passphrase[^\n]*: $)"
)


class Person:
    """Somebody who knows the volume's passphrase."""

    def __init__(self, machine: Machine, passphrase: str) -> None:
        self._machine, self._passphrase = machine, passphrase

    def log_in(self) -> None:
        """Log in as root, and have the kernel say nothing behind a prompt any more, as it may until then."""
        self._machine.wait_console(f"{HOST} login: ")
        self._machine.type("root\n")
        self._machine.wait_console(rf"^root@{HOST}:[^#\n]*# ")
        self._machine.type("dmesg --console-off\n")
        self._wait()

    def types(self, commands: str) -> str:
        """Type commands line by line as they stand; each must succeed. Returns what the terminal showed meanwhile."""
        before = len(self._machine.console_text())
        for line in commands.splitlines():
            self._machine.type(line + "\n")
            if self._wait() == "shell" and line:
                self._must_have_succeeded(line)
        return self._machine.console_text()[before:]

    def last_words(self, command: str) -> None:
        """Type a command after which the machine is gone."""
        self._machine.type(command + "\n")
        self._machine.wait_off()

    def _wait(self) -> str:
        """Answer questions until it is the shell's turn; says which of its prompts is there."""
        while True:
            turn = self._machine.wait_console(_TURN, COMMAND_SECONDS).lastgroup
            if turn == "yes":
                self._machine.type("YES\n")
            elif turn == "secret":
                self._machine.type(self._passphrase + "\n")
            else:
                assert turn
                return turn

    def _must_have_succeeded(self, command: str) -> None:
        self._machine.type("echo code=$?\n")
        code = self._machine.wait_console(r"^code=(\d+)$")[1]
        self._wait()
        assert code == "0", f"`{command}` ended with {code}: {self._machine.console_text()[-2000:]}"


def fenced_commands(page: str, heading: str) -> list[str]:
    """The shell blocks of a section of a Markdown page, up to the next heading of any level."""
    section = re.search(
        rf"(?ms)^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", re.sub(r"(?ms)^```sh\n.*?^```$", _hide, page)
    )
    assert section, f"there is no section {heading!r}"
    return [block.replace("\0", "\n") for block in re.findall(r"(?m)^```sh\0(.*?)\0```$", section[1])]


def _hide(block: re.Match[str]) -> str:
    return block[0].replace("\n", "\0")
