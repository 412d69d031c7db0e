// SPDX-License-Identifier: GPL-2.0
/* This module's share of C: the wrappers of inline functions, and parameters. */
#include "../shim/shim.c"
#include "../shim/params.c"

unsigned int qtfs_client_memory;
module_param(qtfs_client_memory, uint, 0644);
MODULE_PARM_DESC(qtfs_client_memory, "MiB that one client may make the kernel keep (0: a quarter of the memory, at most 8192)");
