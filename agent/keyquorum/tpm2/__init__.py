# SPDX-License-Identifier: Apache-2.0
"""A small TPM 2.0 client: the commands keyquorum needs, marshalled here, sent through a device that callers pass in.

No TSS library is involved: docs/decisions/0010-tpm-client.md says why. Section numbers of the form "Part 1 §19.6"
are those of the TCG TPM 2.0 Library Specification, revision 1.59.
"""
