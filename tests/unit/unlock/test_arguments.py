# SPDX-License-Identifier: Apache-2.0
"""The words of `unlock` and `check`, read without argparse."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import UsageError
from keyquorum.linux import cryptsetup
from keyquorum.unlock import arguments
from keyquorum.unlock.arguments import Arguments, HelpRequestedError, parse
from keyquorum.unlock.open_volume import CRYPTTAB_FLAGS, KeyLink


def read(*words: str) -> Arguments:
    return parse(words, "help")


def test_defaults() -> None:
    assert read("/dev/vdb") == Arguments(device="/dev/vdb")
    assert Arguments(device="x").prompt


def test_everything_at_once_in_any_order() -> None:
    words = [
        "--json",
        "--name",
        "data",
        "--holder",
        "disk",
        "--holder=tpm",
        "--timeout",
        "1.5",
        "--pin-fd",
        "sc=5",
        "--pin-fd=tpm.2=6",
        "--header",
        "h",
        "--options",
        "discard,read-only,nofail",
        "--link-key",
        "@u::%user:backup",
        "--no-prompt",
        "--boot",
        "--record",
    ]
    expected = Arguments(
        device="UUID=x",
        name="data",
        kinds=("disk", "tpm"),
        timeout=1.5,
        answer_fds=(("sc", 5), ("tpm.2", 6)),
        header="h",
        flags=cryptsetup.ACTIVATE_ALLOW_DISCARDS | cryptsetup.ACTIVATE_READONLY,
        link=KeyLink(keyring="@u", kind="user", description="backup"),
        prompt=False,
        json=True,
        boot=True,
        record=True,
    )
    assert read("UUID=x", *words) == read(*words, "UUID=x") == expected


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help(word: str) -> None:
    with pytest.raises(HelpRequestedError) as caught:
        parse(["/dev/x", "--json", word, "--what"], "how to")
    assert caught.value.message == "how to"


LINK = "must be KEYRING::[%TYPE:]DESCRIPTION, where TYPE is user or logon"
REFUSED = {
    "": "DEVICE is missing",
    "/dev/x /dev/y": "one DEVICE at a time, not /dev/x and /dev/y",
    "/dev/x --what": "--what is no option here",
    "/dev/x -x": "-x is no option here",
    "/dev/x --json=1": "--json=1 is no option here",
    "/dev/x --name": "--name needs a value",
    "/dev/x --name=": "'' is no name for a mapping",
    "/dev/x --name a/b": "'a/b' is no name for a mapping",
    "/dev/x --name .": "'.' is no name for a mapping",
    "/dev/x --name ..": "'..' is no name for a mapping",
    "/dev/x --name=a\x1bb": "'a\\x1bb' is no name for a mapping",
    "/dev/x --name " + "n" * 128: f"'{'n' * 128}' is no name for a mapping",
    "/dev/x --holder paper": "'paper' is no kind of holder",
    "/dev/x --timeout soon": "--timeout soon: must be seconds, from 0 to 86400",
    "/dev/x --timeout nan": "--timeout nan: must be seconds, from 0 to 86400",
    "/dev/x --timeout -1": "--timeout -1: must be seconds, from 0 to 86400",
    "/dev/x --pin-fd 5": "--pin-fd 5: must be NAME=FD",
    "/dev/x --pin-fd a=b": "--pin-fd a=b: must be NAME=FD",
    "/dev/x --pin-fd a=²": "--pin-fd a=²: must be NAME=FD",
    "/dev/x --pin-fd a=99999999999": "--pin-fd a=99999999999: must be NAME=FD",
    "/dev/x --pin-fd =5": "--pin-fd =5: must be NAME=FD",
    "/dev/x --link-key @u": f"--link-key @u: {LINK}",
    "/dev/x --link-key ::x": f"--link-key ::x: {LINK}",
    "/dev/x --link-key @u::%user": f"--link-key @u::%user: {LINK}",
    "/dev/x --link-key @u::%user:": f"--link-key @u::%user:: {LINK}",
    "/dev/x --link-key @u::%big_key:x": f"--link-key @u::%big_key:x: {LINK}",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*line.split())
    assert caught.value.message == REFUSED[line]
    assert caught.value.exit_code == 2


def test_crypttab_options_that_mean_something_here() -> None:
    for name, flag in CRYPTTAB_FLAGS.items():
        assert read("/dev/x", "--options", f"luks,{name},x-initrd.attach").flags == flag
    assert read("/dev/x", "--options", "").flags == 0


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["--name", "--pin-fd=", "--holder", "a=1", "disk", "--timeout", "="]) | st.text(max_size=5)
    )
)
def test_no_words_make_another_error(words: list[str]) -> None:
    try:
        read(*words)
    except UsageError as refusal:
        assert refusal.exit_code == 2  # noqa: PT017 (most lists are refused, some are not)


def test_the_help_texts_name_what_exists() -> None:
    for text in (arguments.UNLOCK_HELP, arguments.CHECK_HELP):
        assert text.endswith("\n")
        for word in text.replace("[", " ").replace("]", " ").split():
            if word.startswith("--") and not word.startswith("--help"):
                name = word.rstrip(".,:").partition("=")[0]
                assert name in arguments._WITH_VALUE or name in arguments._FLAGS, name
