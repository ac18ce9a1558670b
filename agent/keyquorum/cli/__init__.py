# SPDX-License-Identifier: Apache-2.0
"""The command `keyquorum`: one verb, one file. A verb file has `SUMMARY`, `configure(parser)` and `run(arguments)`."""
