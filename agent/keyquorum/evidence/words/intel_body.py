# SPDX-License-Identifier: Apache-2.0
"""Words for the checks of what a quote says: of a trust domain (TDX) or of an enclave (SGX)."""

from __future__ import annotations

WORDS = {
    "tdx.attributes.reserved": "The machine has no property that this program does not know.",
    "tdx.attributes.debug": (
        "The host may not debug the machine. With debugging on it reads the whole memory, and all protection is for "
        "show."
    ),
    "tdx.attributes.sept-ve-disable": (
        "The host cannot take pages away and thereby make the machine run its exception code. Machines of clouds with "
        "a layer of their own below (a paravisor) have this off; they need a policy that says so."
    ),
    "tdx.attributes.migratable": "The machine cannot be moved to another host, which would then hold its memory.",
    "tdx.attributes.pks": "Protection keys for the kernel are off, unless the policy takes them.",
    "tdx.attributes.kl": "Key Locker is off, unless the policy takes it.",
    "tdx.attributes.perfmon": "Performance counters are off in the machine, unless the policy takes them.",
    "tdx.attributes.lass": "Separation of linear addresses (LASS) is off, unless the policy takes it.",
    "tdx.attributes.tpa": "The attribute TPA is off, unless the policy takes it.",
    "tdx.xfam.fixed": "The processor's features in the machine are a combination that the TDX module allows.",
    "tdx.xfam.allowed": "The machine uses no feature of the processor beyond those in the policy.",
    "tdx.log.format": "The machine's event log can be read. It tells what was measured when the machine started.",
    "tdx.log.replay": (
        "Adding the log up gives the registers that the quote vouches for. Only so the log, which has no signature, "
        "is believed."
    ),
    "tdx.mrservicetd": (
        "No helper domain is bound to the machine but those of the policy; a helper could move it elsewhere."
    ),
    "tdx.mrtd": "The memory that the machine started with, its firmware above all, is the expected one by its digest.",
    "tdx.rtmr0": "What the firmware measured of itself and of its settings is the expected.",
    "tdx.rtmr1": "The boot loader or kernel that was started is the expected one.",
    "tdx.rtmr2": (
        "Kernel command line and initial file system, or what the loader measured of them, are the expected ones."
    ),
    "tdx.rtmr3": "What the running system measured into its own register is the expected.",
    "tdx.mrconfigid": "The configuration that the host gave the machine at its start is the expected one.",
    "tdx.mrowner": "The machine was started for an owner that the policy names.",
    "tdx.mrownerconfig": "The owner's configuration is the expected one.",
    "tdx.mrseam": "The TDX module is one that the policy names, by its digest.",
    "sgx.attributes.debug": "The enclave is not debugged. Debugged, the host reads its memory.",
    "sgx.attributes.init": "The enclave was initialised: its measurement is final.",
    "sgx.attributes.mode64": "The enclave runs with 64 bits, as its measurement supposes.",
    "sgx.attributes.reserved": "The enclave has no property that this program does not know.",
    "sgx.attributes.provision-key": (
        "The enclave may not ask for the key that identifies the platform for ever, unless the policy takes it."
    ),
    "sgx.attributes.einittoken-key": "The enclave may not allow other enclaves to start, unless the policy takes it.",
    "sgx.identity": (
        "It is an enclave of the policy: just this code, or any code by this signer and product that is new enough."
    ),
    "sgx.configid": "The enclave was started with a configuration that the policy names.",
    "sgx.isvextprodid": "The enclave has an extended product number that the policy names.",
    "sgx.isvfamilyid": "The enclave belongs to a family that the policy names.",
}
