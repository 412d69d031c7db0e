// SPDX-License-Identifier: GPL-2.0
/* This module's share of C: the wrappers of inline functions, and parameters. */
#include "../shim/shim.c"
#include "../shim/params.c"
