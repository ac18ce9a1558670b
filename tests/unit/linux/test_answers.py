# SPDX-License-Identifier: Apache-2.0
"""Where answers come from, in which order, and what is refused."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyquorum.errors import UnavailableError, UsageError
from keyquorum.linux.answers import LocalAnswers
from keyquorum.secret import Secret


class Person:
    """Types a list of answers; None is Ctrl-C."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    def __call__(self, question: str, _seconds: float, _cancel: int) -> Secret | None:
        self.questions.append(question)
        answer = self.answers.pop(0)
        return None if answer is None else Secret.from_view(answer)


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    return tmp_path


def text(secret: Secret) -> bytes:
    with secret:
        return bytes(secret.view)


def pipe_with(content: bytes) -> int:
    read_end, write_end = os.pipe()
    os.write(write_end, content)
    os.close(write_end)
    return read_end


@pytest.fixture
def descriptor() -> Iterator[int]:
    end = pipe_with(b"from a pipe\n")
    yield end
    os.close(end)


def test_credential_of_the_holder(credentials: Path) -> None:
    (credentials / "keyquorum.hsm").write_bytes(b"1234\n")
    answers = LocalAnswers(credentials=str(credentials))
    assert answers.ready("hsm")
    assert not answers.ready("other")
    assert text(answers.ask("hsm", "PIN")) == b"1234"
    assert text(answers.ask("hsm", "PIN")) == b"1234"
    assert text(answers.ask_new("hsm", "PIN")) == b"1234"


@pytest.mark.parametrize(("kind", "name"), [("pkcs11", "cryptsetup.pkcs11-pin"), ("tpm", "cryptsetup.tpm2-pin")])
def test_credentials_as_systemd_names_them(credentials: Path, kind: str, name: str) -> None:
    (credentials / name).write_bytes(b"systemd")
    answers = LocalAnswers(credentials=str(credentials), kinds={"a": kind, "b": "passphrase"})
    assert text(answers.ask("a", "PIN")) == b"systemd"
    assert not answers.ready("b")
    (credentials / "keyquorum.a").write_bytes(b"ours")
    assert text(answers.ask("a", "PIN")) == b"ours"


def test_order_descriptor_credential_person(credentials: Path, descriptor: int) -> None:
    (credentials / "keyquorum.a").write_bytes(b"credential")
    person = Person(b"typed")
    answers = LocalAnswers(credentials=str(credentials), descriptors={"a": descriptor}, prompt=person)
    assert text(answers.ask("a", "?")) == b"from a pipe"
    assert text(answers.ask("b", "?")) == b"typed"
    answers.forget("a")
    assert text(answers.ask("a", "?")) == b"credential"
    assert person.questions == ["?"]


def test_a_descriptor_answers_again_although_a_pipe_is_read_once(descriptor: int) -> None:
    answers = LocalAnswers(descriptors={"a": descriptor})
    assert answers.ready("a")
    assert [text(answers.ask("a", "?")) for _ in range(3)] == [b"from a pipe"] * 3
    assert answers.ready("a")


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"x", b"x"),
        (b"x\n", b"x"),
        (b"x\r\n", b"x"),
        (b"x\n\n", b"x\n"),
        (b" x \n", b" x "),
        (b"two\nlines\n", b"two\nlines"),
        (b"\xff\x00\n", b"\xff\x00"),
        (b"a" * 4096 + b"\n", b"a" * 4096),
        (b"a" * 4096 + b"\r\n", b"a" * 4096),
    ],
)
def test_only_one_newline_is_not_part_of_the_answer(credentials: Path, content: bytes, kept: bytes) -> None:
    (credentials / "keyquorum.a").write_bytes(content)
    assert text(LocalAnswers(credentials=str(credentials)).ask("a", "?")) == kept
    assert text(LocalAnswers(prompt=Person(content)).ask("a", "?")) == kept


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\r\n", "is empty"), (b"a" * 4097, "is longer than 4096 bytes")],
)
def test_empty_and_oversized_credentials(credentials: Path, content: bytes, problem: str) -> None:
    (credentials / "keyquorum.a").write_bytes(content)
    with pytest.raises(UnavailableError, match=rf"^credential keyquorum.a {problem}$"):
        LocalAnswers(credentials=str(credentials)).ask("a", "?")


def test_endless_descriptor_is_refused() -> None:
    with open("/dev/zero", "rb") as endless, pytest.raises(UnavailableError, match="is longer than 4096 bytes"):
        LocalAnswers(descriptors={"a": endless.fileno()}).ask("a", "?")


def test_silent_descriptor_costs_its_time_and_nobody_elses() -> None:
    read_end, write_end = os.pipe()
    answers = LocalAnswers(descriptors={"silent": read_end}, prompt=Person(b"typed"), seconds=6)
    failures: list[UnavailableError] = []

    def ask() -> None:
        try:
            answers.ask("silent", "?")
        except UnavailableError as error:
            failures.append(error)

    waiting = threading.Thread(target=ask)
    started = time.monotonic()
    waiting.start()
    time.sleep(0.05)
    assert text(answers.ask("other", "?")) == b"typed"
    assert time.monotonic() - started < 5
    waiting.join(60)
    os.close(read_end)
    os.close(write_end)
    assert [error.message for error in failures] == [f"descriptor {read_end} for silent gave no answer in time"]


def test_descriptor_that_is_not_open() -> None:
    read_end = pipe_with(b"")
    os.close(read_end)
    with pytest.raises(UsageError, match=rf"^descriptor {read_end} for a is not open$"):
        LocalAnswers(descriptors={"a": read_end})


def test_descriptor_that_cannot_be_read(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(UnavailableError, match=rf"^descriptor {directory} for a cannot be read: Is a directory$"):
        LocalAnswers(descriptors={"a": directory}, seconds=1).ask("a", "?")
    os.close(directory)


def test_credential_that_is_no_file(credentials: Path) -> None:
    os.mkfifo(credentials / "keyquorum.a")
    (credentials / "keyquorum.b").mkdir()
    answers = LocalAnswers(credentials=str(credentials))
    for name in "ab":
        with pytest.raises(UnavailableError, match=rf"^credential keyquorum.{name} is not a file$"):
            answers.ask(name, "?")


def test_a_name_cannot_leave_the_directory(credentials: Path) -> None:
    (credentials / "keyquorum.x").mkdir()
    (credentials / "secret").write_bytes(b"x")
    assert not LocalAnswers(credentials=str(credentials)).ready("x/../secret")


def test_nobody_to_ask() -> None:
    with pytest.raises(UnavailableError, match=r"^nobody can be asked for a$") as caught:
        LocalAnswers().ask("a", "?")
    assert caught.value.hint == "give it as the credential keyquorum.a or with --pin-fd a=FD"


def test_nothing_typed() -> None:
    with pytest.raises(UnavailableError, match=r"^nothing was typed$"):
        LocalAnswers(prompt=Person(None)).ask("a", "?")


def test_a_typed_answer_is_asked_again_unless_kept() -> None:
    person = Person(b"1", b"2")
    answers = LocalAnswers(prompt=person)
    assert [text(answers.ask("a", "?")) for _ in range(2)] == [b"1", b"2"]
    person = Person(b"1", b"2")
    answers = LocalAnswers(prompt=person, keep=True)
    assert [text(answers.ask("a", "?")) for _ in range(2)] == [b"1", b"1"]
    answers.forget("a")
    assert text(answers.ask("a", "?")) == b"2"


def test_new_secret_is_typed_twice() -> None:
    person = Person(b"one", b"two", b"good", b"good")
    answers = LocalAnswers(prompt=person, keep=True)
    assert text(answers.ask_new("a", "new passphrase")) == b"good"
    assert person.questions == [
        "new passphrase",
        "new passphrase, again",
        "the two differ; new passphrase",
        "new passphrase, again",
    ]
    assert text(answers.ask("a", "?")) == b"good"


def test_new_secret_that_never_agrees() -> None:
    with pytest.raises(UnavailableError, match="differed 3 times"):
        LocalAnswers(prompt=Person(b"1", b"2", b"3", b"4", b"5", b"6")).ask_new("a", "?")


def test_one_question_at_a_time() -> None:
    open_questions, most = [0], [0]

    def slow(question: str, seconds: float, cancel: int) -> Secret | None:
        open_questions[0] += 1
        most[0] = max(most[0], open_questions[0])
        time.sleep(0.05)
        open_questions[0] -= 1
        return Secret.from_view(b"x")

    answers = LocalAnswers(prompt=slow)
    threads = [threading.Thread(target=lambda n=n: answers.ask(f"h{n}", "?").wipe()) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_cancel_reaches_a_question_that_looks_late_and_no_later_one() -> None:
    """A thread that got no processor for longer than `cancel` waits still finds the order to end."""
    looked = threading.Event()

    def starved(_question: str, _seconds: float, cancel: int) -> Secret | None:
        looked.wait(30)
        return None if ready_now(cancel) else Secret.from_view(b"asked on")

    answers, problems = LocalAnswers(prompt=starved, seconds=30), []

    def ask() -> None:
        try:
            answers.ask("a", "?")
        except UnavailableError as error:
            problems.append(error.message)

    thread = threading.Thread(target=ask)
    thread.start()
    while not answers._asking.locked():
        time.sleep(0.01)
    answers.cancel()  # in vain, after its two seconds
    looked.set()
    thread.join(30)
    assert problems == ["nothing was typed"]
    with answers.ask("b", "?") as later:
        assert bytes(later.view) == b"asked on"
    answers.close()


def ready_now(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_cancel_ends_the_question_that_stands_and_no_later_one() -> None:
    def patient(question: str, seconds: float, cancel: int) -> Secret | None:
        return None if select.select([cancel], [], [], seconds)[0] else Secret.from_view(b"too late")

    answers, problems = LocalAnswers(prompt=patient, seconds=30), []

    def ask() -> None:
        try:
            answers.ask("a", "?")
        except UnavailableError as error:
            problems.append(error.message)

    thread = threading.Thread(target=ask)
    thread.start()
    while not answers._asking.locked():
        time.sleep(0.01)
    started = time.monotonic()
    answers.cancel()
    thread.join(5)
    assert time.monotonic() - started < 10
    assert problems == ["nothing was typed"]
    answers.cancel()  # nothing stands: nothing to end
    impatient = LocalAnswers(prompt=lambda _question, _seconds, cancel: patient("?", 0.05, cancel), seconds=30)
    impatient.cancel()
    with impatient.ask("a", "?") as later:
        assert bytes(later.view) == b"too late"
    impatient.close()
    answers.close()
