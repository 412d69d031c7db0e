/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel headers that bindgen turns into the crate `qtfs_bindings`. What
 * of them appears there is chosen by the allowlists in `parameters`; inline
 * functions and macros with arguments never do and are wrapped in ../shim.
 *
 * Each section is sorted alphabetically.
 */

/*
 * Enumerations that other headers refer to before they are defined: bindgen
 * would get their type wrong.
 */
#include <linux/hrtimer_types.h>

/* Mounts, super blocks and mount options. */
#include <linux/backing-dev.h>
#include <linux/exportfs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/seq_file.h>
#include <linux/statfs.h>

/* Inodes, dentries, files and their attributes. */
#include <linux/dcache.h>
#include <linux/delayed_call.h>
#include <linux/falloc.h>
#include <linux/fcntl.h>
#include <linux/fiemap.h>
#include <linux/file.h>
#include <linux/fileattr.h>
#include <linux/fs.h>
#include <linux/iversion.h>
#include <linux/namei.h>
#include <linux/poll.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/security.h>
#include <linux/stat.h>
#include <linux/xattr.h>

/* The page cache. */
#include <linux/bvec.h>
#include <linux/iomap.h>
#include <linux/mm.h>
#include <linux/page_frag_cache.h>
#include <linux/pagemap.h>
#include <linux/splice.h>
#include <linux/uio.h>
#include <linux/writeback.h>

/* Locks and leases of files, and changes made by others. */
#include <linux/filelock.h>
#include <linux/fsnotify.h>
#include <linux/fsnotify_backend.h>

/* Credentials, namespaces and the current task. */
#include <linux/cred.h>
#include <linux/fs_struct.h>
#include <linux/mnt_idmapping.h>
#include <linux/nsproxy.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/user_namespace.h>
#include <linux/utsname.h>

/* Sockets, and the keys that TLS takes. */
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/inet.h>
#include <linux/key.h>
#include <linux/net.h>
#include <linux/socket.h>
#include <linux/tcp.h>
#include <linux/un.h>
#include <linux/vm_sockets.h>
#include <net/handshake.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/tls_prot.h>

/* Threads, waiting and memory. */
#include <linux/completion.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/mempool.h>
#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/rwsem.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

/* What user space sees. */
#include <linux/anon_inodes.h>
#include <linux/debugfs.h>
#include <linux/kobject.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/sysfs.h>
#include <asm/ioctls.h>

#include "shim.h"

/* Last, because it evaluates what the headers define. */
#include "constants.h"
