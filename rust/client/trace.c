// SPDX-License-Identifier: GPL-2.0
/* Tracepoints of the client, as functions that Rust can call. */
#include "shim.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

void qtfs_trace_start(const struct qtfs_trace *request)
{
	trace_qtfs_start(request);
}

void qtfs_trace_wait(const struct qtfs_trace *request)
{
	trace_qtfs_wait(request);
}

void qtfs_trace_finish(const struct qtfs_trace *request, long status, u64 us)
{
	trace_qtfs_finish(request, status, us);
}

void qtfs_trace_reconnect(const char *mount, size_t mount_len, unsigned int lane, int error)
{
	trace_qtfs_reconnect(mount, mount_len, lane, error);
}
