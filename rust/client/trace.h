/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints of the client: what becomes of requests. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM qtfs

#if !defined(_QTFS_CLIENT_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _QTFS_CLIENT_TRACE_H

#include <linux/tracepoint.h>

/* The address tells requests apart; the mount is named as in the log. */
DECLARE_EVENT_CLASS(qtfs_request,
	TP_PROTO(const struct qtfs_trace *request),
	TP_ARGS(request),
	TP_STRUCT__entry(
		__string_len(mount, request->mount, request->mount_len)
		__string_len(op, request->op, request->op_len)
		__field(const void *, request)
		__field(size_t, len)
	),
	TP_fast_assign(
		__assign_str(mount);
		__assign_str(op);
		__entry->request = request->request;
		__entry->len = request->len;
	),
	TP_printk("mount=%s op=%s request=%p len=%zu", __get_str(mount), __get_str(op),
		  __entry->request, __entry->len)
);

/* A request is on its way. */
DEFINE_EVENT(qtfs_request, qtfs_start,
	TP_PROTO(const struct qtfs_trace *request),
	TP_ARGS(request)
);

/* The current program begins to wait for the reply. */
DEFINE_EVENT(qtfs_request, qtfs_wait,
	TP_PROTO(const struct qtfs_trace *request),
	TP_ARGS(request)
);

/* It ended; the status is 0 or an errno, of the server or of this machine. */
TRACE_EVENT(qtfs_finish,
	TP_PROTO(const struct qtfs_trace *request, long status, u64 us),
	TP_ARGS(request, status, us),
	TP_STRUCT__entry(
		__string_len(mount, request->mount, request->mount_len)
		__string_len(op, request->op, request->op_len)
		__field(const void *, request)
		__field(long, status)
		__field(u64, us)
	),
	TP_fast_assign(
		__assign_str(mount);
		__assign_str(op);
		__entry->request = request->request;
		__entry->status = status;
		__entry->us = us;
	),
	TP_printk("mount=%s op=%s request=%p status=%ld us=%llu", __get_str(mount), __get_str(op),
		  __entry->request, __entry->status, __entry->us)
);

/* A connection was lost and is made anew. */
TRACE_EVENT(qtfs_reconnect,
	TP_PROTO(const char *mount, size_t mount_len, unsigned int lane, int error),
	TP_ARGS(mount, mount_len, lane, error),
	TP_STRUCT__entry(
		__string_len(mount, mount, mount_len)
		__field(unsigned int, lane)
		__field(int, error)
	),
	TP_fast_assign(
		__assign_str(mount);
		__entry->lane = lane;
		__entry->error = error;
	),
	TP_printk("mount=%s lane=%u error=%d", __get_str(mount), __entry->lane, __entry->error)
);

#endif /* _QTFS_CLIENT_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
