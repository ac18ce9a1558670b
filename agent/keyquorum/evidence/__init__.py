# SPDX-License-Identifier: Apache-2.0
"""Reading evidence of what a machine is and runs; pure functions, one file for each technology."""
