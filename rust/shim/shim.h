/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's inline functions and macros, as functions that Rust can call.
 *
 * Each is the kernel's own under the prefix qtfs_ and does nothing else, so
 * the kernel's documentation applies. bindgen reads this file through
 * ../bindings/helper.h.
 */
#ifndef _QTFS_SHIM_H
#define _QTFS_SHIM_H

#include <linux/cred.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/fs_struct.h>
#include <linux/fsnotify_backend.h>
#include <linux/if_ether.h>
#include <linux/kthread.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/net.h>
#include <linux/page_frag_cache.h>
#include <linux/pagemap.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

/* Memory. */
unsigned long qtfs_totalram_pages(void);

/* Inodes. */
loff_t qtfs_i_size_read(const struct inode *inode);
void qtfs_i_size_write(struct inode *inode, loff_t size);
void qtfs_inode_lock(struct inode *inode);
int qtfs_inode_lock_killable(struct inode *inode);
void qtfs_inode_unlock(struct inode *inode);
void qtfs_inode_set_atime(struct inode *inode, time64_t sec, long nsec);
void qtfs_inode_set_mtime(struct inode *inode, time64_t sec, long nsec);
void qtfs_inode_set_ctime(struct inode *inode, time64_t sec, long nsec);
void qtfs_i_uid_write(struct inode *inode, uid_t uid);
void qtfs_i_gid_write(struct inode *inode, gid_t gid);

/* Dentries. */
struct inode *qtfs_d_inode(const struct dentry *dentry);
struct inode *qtfs_d_inode_rcu(const struct dentry *dentry);
bool qtfs_d_is_negative(const struct dentry *dentry);
bool qtfs_d_is_positive(const struct dentry *dentry);
bool qtfs_d_in_lookup(const struct dentry *dentry);
void qtfs_d_lookup_done(struct dentry *dentry);
bool qtfs_d_unhashed(const struct dentry *dentry);
struct dentry *qtfs_dget(struct dentry *dentry);

/* Files and directories that are being read. */
struct inode *qtfs_file_inode(const struct file *file);
struct dentry *qtfs_file_dentry(const struct file *file);
struct file *qtfs_get_file(struct file *file);
bool qtfs_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino, unsigned int type);
bool qtfs_dir_emit_dots(struct file *file, struct dir_context *ctx);
void qtfs_set_delayed_call(struct delayed_call *call, void (*fn)(void *), void *arg);
int qtfs_inode_writers(const struct inode *inode);

/* Paths and changes of directories. */
struct mnt_idmap *qtfs_mnt_idmap(const struct vfsmount *mnt);
void qtfs_end_creating(struct dentry *child);
void qtfs_end_removing(struct dentry *child);
void qtfs_end_renaming(struct renamedata *rd);
int qtfs_break_deleg_wait(struct delegated_inode *di);
int qtfs_break_lease(struct inode *inode, unsigned int mode);

/* The page cache. */
size_t qtfs_offset_in_folio(struct folio *folio, loff_t pos);
struct page *qtfs_folio_page(struct folio *folio, size_t index);
void qtfs_mapping_set_error(struct address_space *mapping, int error);
ssize_t qtfs_generic_write_sync(struct kiocb *iocb, ssize_t count);
struct page *qtfs_alloc_pages(gfp_t gfp, unsigned int order);

void qtfs_get_page(struct page *page);
void qtfs_put_page(struct page *page);
void *qtfs_segment_address(const struct bio_vec *bvec, size_t offset);

/* Data in motion. */
size_t qtfs_iov_iter_count(const struct iov_iter *iter);
unsigned long qtfs_copy_to_user(void __user *to, const void *from, unsigned long length);
unsigned long qtfs_copy_from_user(void *to, const void __user *from, unsigned long length);

/* Credentials, users and memory of the current task. */
const struct cred *qtfs_current_cred(void);
struct task_struct *qtfs_current(void);
const struct cred *qtfs_override_creds(const struct cred *cred);
const struct cred *qtfs_revert_creds(const struct cred *cred);
const struct cred *qtfs_get_cred(const struct cred *cred);
void qtfs_put_cred(const struct cred *cred);
void qtfs_put_group_info(struct group_info *groups);
unsigned int qtfs_memalloc_nofs_save(void);
void qtfs_memalloc_nofs_restore(unsigned int flags);
bool qtfs_fatal_signal_pending(void);
unsigned long qtfs_file_size_limit(void);

/* Threads and waiting. */
struct task_struct *qtfs_kthread_run(int (*thread)(void *), void *data, const char *name);
void qtfs_kthread_wait_stop(void);
void qtfs_kthread_allow_kill(void);
void qtfs_kthread_kill(struct task_struct *task);
void qtfs_init_completion(struct completion *completion);
struct task_struct *qtfs_get_task_struct(struct task_struct *task);
void qtfs_put_task_struct(struct task_struct *task);

/* Sockets. The flags are the caller's; MSG_SPLICE_PAGES sends pages in place. */
int qtfs_sock_send_bvec(struct socket *sock, const struct bio_vec *bvec, unsigned long segments,
			size_t length, unsigned int flags);
int qtfs_sock_recv_bvec(struct socket *sock, const struct bio_vec *bvec, unsigned long segments,
			size_t length, unsigned int flags);
int qtfs_sock_send_kvec(struct socket *sock, const struct kvec *kvec, unsigned long segments,
			size_t length, unsigned int flags);
int qtfs_sock_recv_kvec(struct socket *sock, const struct kvec *kvec, unsigned long segments,
			size_t length, unsigned int flags);
void qtfs_sock_hold_net(struct socket *sock);
void qtfs_sock_set_nofs(struct socket *sock);
void qtfs_sock_set_timeouts(struct socket *sock, long receive, long send);
bool qtfs_sock_hardware_address(struct socket *sock, u8 address[ETH_ALEN]);

/* Tracepoints; the client's module alone has them. The texts have no NUL at their end. */
struct qtfs_trace {
	const char *mount;
	size_t mount_len;
	const char *op;
	size_t op_len;
	const void *request;
	size_t len;
};

void qtfs_trace_start(const struct qtfs_trace *request);
void qtfs_trace_wait(const struct qtfs_trace *request);
void qtfs_trace_finish(const struct qtfs_trace *request, long status, u64 us);
void qtfs_trace_reconnect(const char *mount, size_t mount_len, unsigned int lane, int error);

#include "alias.h"
#include "fifo.h"
#include "local.h"
#include "lock.h"
#include "mount.h"
#include "notify.h"
#include "submount.h"
#include "sysfs.h"
#include "unix.h"
#include "watch.h"

#endif /* _QTFS_SHIM_H */
