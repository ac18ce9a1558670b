# SPDX-License-Identifier: Apache-2.0
"""`keyquorum attest` by its real command line (docs/attestation-command.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyquorum.cli import attest_verify
from keyquorum.envelope import public_key_file
from keyquorum.envelope.dsse import PublicKey
from keyquorum.evidence import bundle, certificate, explanation, policy_review, result, trial
from keyquorum.evidence.bundle import TECHNOLOGIES
from keyquorum.evidence.result import Check, Outcome, Status
from keyquorum.model import strict_json
from unit.evidence import snp_maker, tpm_maker
from unit.evidence.bundle_maker import sample
from unit.evidence.test_collect_formats import WHOLE
from unit.evidence.tpm_maker import NOW, OWNER, signed

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "packaging/examples").glob("attest-*.json"))
ENTRY = "from keyquorum.cli.main import main; import sys; sys.exit(main())"


class Desk:
    """A directory with the files of a case, and the program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return str(path)

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", ENTRY, "attest", *words],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            timeout=60,
            check=False,
            env={"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def case(self, technology: str) -> list[str]:
        """Write what a case needs; return the options by which its bundle is trusted."""
        found = sample(technology)
        words = ["--signer", self.write("owner.pub", public_key_file.serialise(OWNER.public))]
        for number, (kind, table) in enumerate(found.policies):
            words += ["--policy", self.write(f"policy-{number}", signed(table, OWNER, kind))]
        if found.roots:
            pem = b"".join(certificate.load(one, "x").parsed.public_bytes(Encoding.PEM) for one in found.roots)
            words += ["--roots", self.write("roots.pem", pem)]
        if found.ak:
            words += ["--ak", self.write("ak", found.ak)]
        return [*words, "--nonce", found.nonce.hex(), "--at", str(NOW)]

    def bundle(self, technology: str) -> str:
        return self.write("bundle", bundle.serialise(sample(technology).bundle))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_a_bundle_is_judged_and_every_check_explained(desk: Desk, technology: str) -> None:
    done = desk.run("verify", desk.bundle(technology), *desk.case(technology))
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.startswith("trusted: ")
    assert first.endswith("judged for 2027-01-15 08:00:00 UTC")
    names = [line.strip() for line in lines if line.strip() in explanation.REFERENCES]
    assert len(names) > 15
    for name in names:
        assert f"    asks:     {explanation.explain(name).words}" in lines
    assert "the machine, as it was proven:" in lines
    assert ("warning: the roots in" in done.stderr) == (technology != "tpm")


def test_what_is_wrong_stands_first_with_what_was_wanted(desk: Desk) -> None:
    words = desk.case("snp")
    loose = {"guest-policy": snp_maker.GUEST | {"smt": "any"}, "measurement": ["00" * 48]}
    desk.write("policy-0", signed(snp_maker.policy_table(**loose), OWNER, sample("snp").policies[0][0]))
    done = desk.run("verify", desk.bundle("snp"), *words)
    assert done.returncode == 4
    lines = done.stdout.splitlines()
    assert lines[0].startswith("untrusted: a report of AMD SEV-SNP")
    assert lines[1].startswith("  snp.measurement: expected ")
    assert lines[3] == f"failed: 1 of {sum(line.strip() in explanation.REFERENCES for line in lines)} checks"
    assert lines[4:6] == ["  snp.measurement", f"    asks:     {explanation.explain('snp.measurement').words}"]
    assert lines[6].startswith("    expected: 0000")
    assert lines[7] == f"    found:    {snp_maker.MEASUREMENT.hex()}"
    assert "    waived:   the policy does not ask (forbidden)" in lines
    assert "the machine, as it was proven:" not in lines


def test_the_result_is_the_one_that_relying_parties_get(desk: Desk) -> None:
    words = desk.case("tdx")
    done = desk.run("verify", desk.bundle("tdx"), *words, "--json")
    assert done.returncode == 0
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["version"], told["command"], told["exit_code"]) == (1, "attest verify", 0)
    found = result.parse(strict_json.serialise(told["result"]))
    assert (found.status, found.technology, found.at) == ("trusted", "tdx", NOW)
    words[words.index("--nonce") + 1] = "00" * 64
    done = desk.run("verify", desk.bundle("tdx"), *words, "--json")
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (4, 4)


def test_a_result_of_any_size_is_printed_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = Check(
        name="snp.policy.debug", spec="s", expected="\u00e9" * 256, actual="\u00e9" * 256, outcome=Outcome.FAILED
    )
    large = result.AttestationResult(
        technology="snp", status=Status.UNTRUSTED, at=NOW, checks=(check,) * 60, reason="so it is"
    )
    assert len(result.serialise(large)) > result.MAX_RESULT
    monkeypatch.setattr(attest_verify, "_collected", lambda _arguments: None)
    monkeypatch.setattr(attest_verify, "_known", lambda _given, _arguments: None)
    monkeypatch.setattr(trial, "judge", lambda _given, _known: large)
    assert attest_verify.run(Namespace(json=True)) == 4
    told = json.loads(capsys.readouterr().out)
    assert len(told["result"]["checks"]) == 60
    assert told["result"] == json.loads(result.serialise(large))


def test_evidence_as_its_technology_makes_it_with_the_rest_beside_it(desk: Desk) -> None:
    found, words = sample("snp").bundle, desk.case("snp")
    report = desk.write("report.bin", found.part("report"))
    done = desk.run("verify", report, *words)
    assert (done.returncode, "snp.chain.certificates" in done.stdout) == (4, True)
    chain = bundle.split_certificates(found.part("certificates"))
    own = desk.write("chip.der", chain[0])
    loaded = [certificate.load(one, "x").parsed for one in chain[1:]]
    rest = desk.write("chain.pem", b"".join(one.public_bytes(Encoding.PEM) for one in loaded))
    done = desk.run("verify", report, *words, "--certificates", own, "--certificates", rest)
    assert done.returncode == 0, done.stdout
    table = desk.write("auxblob", WHOLE)
    assert desk.run("verify", report, *words, "--certificates", table).returncode == 0
    assert desk.run("verify", report, *words, "--certificates", desk.write("torn", WHOLE[:-1])).returncode == 2
    found, words = sample("tdx").bundle, desk.case("tdx")
    collateral = desk.write("collateral.json", found.part("collateral"))
    done = desk.run("verify", "-", *words, "--collateral", collateral, stdin=found.part("quote"))
    assert done.returncode == 0, done.stdout


def test_without_a_question_nothing_is_judged(desk: Desk) -> None:
    words = desk.case("nitro")
    at = words.index("--nonce")
    done = desk.run("verify", desk.bundle("nitro"), *words[:at], *words[at + 2 :])
    assert (done.returncode, done.stdout) == (2, "")
    assert sample("nitro").nonce.hex() in done.stderr


USAGE: dict[str, tuple[list[str], str]] = {
    "no policy": (["verify", "bundle", "--signer", "owner.pub", "--nonce", "00"], "say by what to judge"),
    "no signer": (["verify", "bundle", "--policy", "policy-0", "--nonce", "00"], "say by what to judge"),
    "no file": (["verify", "nothing"], "cannot be read"),
    "no evidence": (["verify", "owner.pub"], "is no evidence that is known here"),
    "no place for it": (["verify", "bundle", "--collateral", "owner.pub"], "--collateral has no place"),
    "no certificate": (["verify", "bundle", "--certificates", "owner.pub"], "owner.pub"),
    "no check": (["explain", "snp.nothing"], "no check is called snp.nothing"),
    "no policy at all": (["policy", "check", "owner.pub"], "not JSON"),
    "no kind of policy": (["policy", "check", "bundle"], "is of no known kind"),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_call_that_does_not_fit_judges_nothing(desk: Desk, case: str) -> None:
    desk.bundle("snp")
    desk.case("snp")
    words, told = USAGE[case]
    done = desk.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--nonce", "0x"), ("--at", "yesterday"), ("--at", "9" * 13), ("--signer", "bundle")]
)
def test_values_that_are_none(desk: Desk, option: str, value: str) -> None:
    words = [*desk.case("snp"), option, value]
    done = desk.run("verify", desk.bundle("snp"), *words)
    assert (done.returncode, done.stdout) == (2, "")


def test_an_instant_in_words_is_of_utc(desk: Desk) -> None:
    words = desk.case("snp")
    for text in ("2027-01-15T08:00:00Z", "2027-01-15 08:00", "2027-01-15T09:00:00+01:00"):
        words[words.index("--at") + 1] = text
        assert desk.run("verify", desk.bundle("snp"), *words).stdout.splitlines()[0].endswith("2027-01-15 08:00:00 UTC")


def test_a_bundle_that_cannot_be_read_is_no_mistake_of_the_caller(desk: Desk) -> None:
    path = desk.write("bundle", b'{"version":1}')
    assert desk.run("verify", path, *desk.case("snp")).returncode == 4


def test_words_of_a_check(desk: Desk) -> None:
    done = desk.run("explain", "tdx.attributes.debug")
    assert done.stdout.splitlines() == [
        "tdx.attributes.debug",
        explanation.explain("tdx.attributes.debug").words,
        "demanded by: TDX Module ABI, ATTRIBUTES",
    ]
    assert desk.run("explain", "nitro.chain").stdout.split() == list(explanation.beginning_with("nitro.chain"))


# Policies


def test_a_policy_is_checked_signed_and_then_counts(desk: Desk) -> None:
    ((kind, table),) = sample("snp").policies
    plain = desk.write("plain.json", json.dumps(table, indent=2).encode())
    assert "  not signed" in desk.run("policy", "check", plain).stdout.splitlines()
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    key = desk.write("owner.key", private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    done = desk.run("policy", "sign", plain, "--key", key, "--out", "new", "--public-key", "new.pub")
    assert done.returncode == 0, done.stderr
    assert OWNER.public.key_id in done.stdout
    assert (desk.folder / "new").read_bytes() == signed(table, OWNER, kind)
    assert desk.run("policy", "check", "new", "--signer", "new.pub").returncode == 0
    words = desk.case("snp")
    words[words.index("--policy") + 1], words[words.index("--signer") + 1] = "new", "new.pub"
    assert desk.run("verify", desk.bundle("snp"), *words).returncode == 0


def test_who_did_not_sign_is_found_out(desk: Desk) -> None:
    desk.case("snp")
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = PublicKey(raw=stranger.public_key().public_bytes_raw())
    desk.write("stranger.pub", public_key_file.serialise(public))
    assert desk.run("policy", "check", "policy-0", "--signer", "stranger.pub").returncode == 4
    assert desk.run("policy", "check", "policy-0", "--signer", "owner.pub").returncode == 0
    desk.write("plain", strict_json.serialise(sample("snp").policies[0][1]))
    assert desk.run("policy", "check", "plain", "--signer", "owner.pub").returncode == 4


def test_nobody_is_said_to_have_signed_who_did_not(desk: Desk) -> None:
    """Anybody can add a signature in another's name to an envelope that an owner signed."""
    desk.case("snp")
    other = "0123456789abcdef0123456789abcdef"
    envelope = json.loads((desk.folder / "policy-0").read_bytes())
    envelope["signatures"].append({"keyid": other, "sig": strict_json.to_base64(bytes(64))})
    desk.write("two", strict_json.serialise(envelope))
    done = desk.run("policy", "check", "two", "--signer", "owner.pub")
    assert f"  signed by {OWNER.public.key_id}, and the signature holds" in done.stdout.splitlines()
    assert other not in done.stdout
    told = json.loads(desk.run("policy", "check", "two", "--signer", "owner.pub", "--json").stdout)
    assert told["signers"] == [OWNER.public.key_id]
    assert other in desk.run("policy", "check", "two").stdout, "here nothing was verified, and it says so"


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_policies_of_every_kind_are_told_apart(technology: str) -> None:
    for kind, table in sample(technology).policies:
        plain = policy_review.review(strict_json.serialise(table))
        assert plain.kind.payload_type == kind
        whole = policy_review.review(signed(table, OWNER, kind))
        assert (whole.policy, whole.signers, plain.signers) == (plain.policy, (OWNER.public.key_id,), ())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_good_policies_that_trust_no_machine_yet(path: Path) -> None:
    found = policy_review.review(path.read_bytes())
    assert found.policy.name == path.stem.removeprefix("attest-")
    assert found.policy.expires - found.policy.issued == 365 * 86400
    assert "f" * 64 in path.read_text(encoding="utf-8") or found.policy.name == "azure"  # which goes with two others
    assert not any("debug" in line or "statuses" in line for line in found.loose)


def test_there_is_an_example_of_every_kind() -> None:
    kinds = {policy_review.review(path.read_bytes()).kind.payload_type for path in EXAMPLES}
    assert kinds == {kind.payload_type for kind in policy_review.KINDS}


def test_what_a_policy_lets_pass_is_named(desk: Desk) -> None:
    rules = {"7": "unjudged", "4": ["00" * 32]}
    plain = desk.write("plain", strict_json.serialise(tpm_maker.policy_table(rules, clock="any", firmware=None)))
    told = json.loads(desk.run("policy", "check", plain, "--json").stdout)
    assert told["loose"] == ["clock takes anything", "firmware takes anything", "pcrs.7 takes anything"]
    assert (told["name"], told["serial"], told["signers"]) == ("servers", 7, [])
    lines = desk.run("policy", "check", plain).stdout.splitlines()
    assert lines[0] == "a policy for a TPM: servers, serial 7"
    assert "    clock takes anything" in lines


def test_a_status_that_is_taken_for_a_time_is_named_with_its_end() -> None:
    ((_, table),) = sample("tdx").policies
    tcb = {"statuses": {"OutOfDate": 1_800_000_000}, "advisories": {}, "evaluation": 0}
    found = policy_review.review(strict_json.serialise(table | {"tcb": tcb}))
    assert "tcb.statuses takes OutOfDate until 2027-01-15 08:00:00 UTC" in found.loose


def test_a_policy_that_would_be_refused_is_not_signed(desk: Desk) -> None:
    ((_, table),) = sample("snp").policies
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    key = desk.write("owner.key", private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    plain = desk.write("plain", strict_json.serialise(table | {"vmpl": [9]}))
    done = desk.run("policy", "sign", plain, "--key", key, "--out", "new")
    assert (done.returncode, (desk.folder / "new").exists()) == (2, False)
    plain = desk.write("plain", strict_json.serialise(table))
    os.chmod(key, 0o644)
    assert desk.run("policy", "sign", plain, "--key", key, "--out", "new").returncode == 2
    assert desk.run("policy", "sign", plain, "--key", "nowhere", "--out", "new").returncode == 2
    assert not (desk.folder / "new").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "tpm", "--tpm-key", "0x1ffffffff"),
        ("--from", "tpm", "--tpm-key", "-5"),
        ("--from", "tpm", "--tpm-key", "0x"),
        ("--from", "tpm", "--tpm-key", "8101_0002"),
        ("--from", "azure", "--pcrs", "00099"),
        ("--from", "azure", "--pcrs", "24"),
        ("--from", "azure", "--pcrs", "0" * 5000),
    ],
)
def test_what_no_tpm_has_is_a_mistake(desk: Desk, words: tuple[str, ...]) -> None:
    done = desk.run(
        "collect",
        "--nonce",
        "00" * 32,
        "--out",
        "new",
        *(f"{a}={b}" for a, b in zip(words[::2], words[1::2], strict=True)),
    )
    assert done.returncode == 2, done.stderr
    assert "fault" not in done.stderr
