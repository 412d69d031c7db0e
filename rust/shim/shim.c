// SPDX-License-Identifier: GPL-2.0
/*
 * Included by the shim.c of each module, so that the functions belong to the
 * module they are linked into.
 */
#include <linux/backing-dev.h>
#include <linux/completion.h>
#include <linux/delayed_call.h>
#include <linux/etherdevice.h>
#include <linux/highmem.h>
#include <linux/if_arp.h>
#include <linux/iversion.h>
#include <linux/kdev_t.h>
#include <linux/nsproxy.h>
#include <linux/posix_acl.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/uaccess.h>
#include <net/dst.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "shim.h"

/* Memory. */

unsigned long qtfs_totalram_pages(void)
{
	return totalram_pages();
}

/* Inodes. */

loff_t qtfs_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

void qtfs_i_size_write(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

void qtfs_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

int qtfs_inode_lock_killable(struct inode *inode)
{
	return inode_lock_killable(inode);
}

void qtfs_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

void qtfs_inode_set_atime(struct inode *inode, time64_t sec, long nsec)
{
	inode_set_atime(inode, sec, nsec);
}

void qtfs_inode_set_mtime(struct inode *inode, time64_t sec, long nsec)
{
	inode_set_mtime(inode, sec, nsec);
}

void qtfs_inode_set_ctime(struct inode *inode, time64_t sec, long nsec)
{
	inode_set_ctime(inode, sec, nsec);
}

void qtfs_i_uid_write(struct inode *inode, uid_t uid)
{
	i_uid_write(inode, uid);
}

void qtfs_i_gid_write(struct inode *inode, gid_t gid)
{
	i_gid_write(inode, gid);
}

/* Dentries. */

struct inode *qtfs_d_inode(const struct dentry *dentry)
{
	return d_inode(dentry);
}

struct inode *qtfs_d_inode_rcu(const struct dentry *dentry)
{
	return d_inode_rcu(dentry);
}

bool qtfs_d_is_negative(const struct dentry *dentry)
{
	return d_is_negative(dentry);
}

bool qtfs_d_is_positive(const struct dentry *dentry)
{
	return d_is_positive(dentry);
}

bool qtfs_d_in_lookup(const struct dentry *dentry)
{
	return d_in_lookup(dentry);
}

void qtfs_d_lookup_done(struct dentry *dentry)
{
	d_lookup_done(dentry);
}

bool qtfs_d_unhashed(const struct dentry *dentry)
{
	return d_unhashed(dentry);
}

struct dentry *qtfs_dget(struct dentry *dentry)
{
	return dget(dentry);
}

/* Files and directories that are being read. */

struct inode *qtfs_file_inode(const struct file *file)
{
	return file_inode(file);
}

struct dentry *qtfs_file_dentry(const struct file *file)
{
	return file_dentry(file);
}

struct file *qtfs_get_file(struct file *file)
{
	return get_file(file);
}

bool qtfs_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino, unsigned int type)
{
	return dir_emit(ctx, name, len, ino, type);
}

bool qtfs_dir_emit_dots(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dots(file, ctx);
}

void qtfs_set_delayed_call(struct delayed_call *call, void (*fn)(void *), void *arg)
{
	set_delayed_call(call, fn, arg);
}

int qtfs_inode_writers(const struct inode *inode)
{
	return atomic_read(&inode->i_writecount);
}

/* Paths and changes of directories. */

struct mnt_idmap *qtfs_mnt_idmap(const struct vfsmount *mnt)
{
	return mnt_idmap(mnt);
}

void qtfs_end_creating(struct dentry *child)
{
	end_creating(child);
}

void qtfs_end_removing(struct dentry *child)
{
	end_removing(child);
}

void qtfs_end_renaming(struct renamedata *rd)
{
	end_renaming(rd);
}

int qtfs_break_deleg_wait(struct delegated_inode *di)
{
	return break_deleg_wait(di);
}

int qtfs_break_lease(struct inode *inode, unsigned int mode)
{
	return break_lease(inode, mode);
}

/* The page cache. */

size_t qtfs_offset_in_folio(struct folio *folio, loff_t pos)
{
	return offset_in_folio(folio, pos);
}

struct page *qtfs_folio_page(struct folio *folio, size_t index)
{
	return folio_page(folio, index);
}

void qtfs_mapping_set_error(struct address_space *mapping, int error)
{
	mapping_set_error(mapping, error);
}

ssize_t qtfs_generic_write_sync(struct kiocb *iocb, ssize_t count)
{
	return generic_write_sync(iocb, count);
}

struct page *qtfs_alloc_pages(gfp_t gfp, unsigned int order)
{
	return alloc_pages(gfp, order);
}

void qtfs_get_page(struct page *page)
{
	get_page(page);
}

void qtfs_put_page(struct page *page)
{
	put_page(page);
}

/* The pages of a segment are contiguous in the kernel's linear map. */
void *qtfs_segment_address(const struct bio_vec *bvec, size_t offset)
{
	return page_address(bvec->bv_page) + bvec->bv_offset + offset;
}

/* Waits until somebody calls kthread_stop() for the current thread. */
void qtfs_kthread_wait_stop(void)
{
	for (;;) {
		set_current_state(TASK_IDLE);
		if (kthread_should_stop())
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
}

void qtfs_sock_hold_net(struct socket *sock)
{
	sk_net_refcnt_upgrade(sock->sk);
}

/* Data in motion. */

size_t qtfs_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

unsigned long qtfs_copy_to_user(void __user *to, const void *from, unsigned long length)
{
	return copy_to_user(to, from, length);
}

unsigned long qtfs_copy_from_user(void *to, const void __user *from, unsigned long length)
{
	return copy_from_user(to, from, length);
}

/* Credentials, users and memory of the current task. */

const struct cred *qtfs_current_cred(void)
{
	return current_cred();
}

struct task_struct *qtfs_current(void)
{
	return current;
}

const struct cred *qtfs_override_creds(const struct cred *cred)
{
	return override_creds(cred);
}

const struct cred *qtfs_revert_creds(const struct cred *cred)
{
	return revert_creds(cred);
}

const struct cred *qtfs_get_cred(const struct cred *cred)
{
	return get_cred(cred);
}

void qtfs_put_cred(const struct cred *cred)
{
	put_cred(cred);
}

void qtfs_put_group_info(struct group_info *groups)
{
	put_group_info(groups);
}

unsigned int qtfs_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

void qtfs_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

bool qtfs_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

unsigned long qtfs_file_size_limit(void)
{
	return rlimit(RLIMIT_FSIZE);
}

/* Threads and waiting. */

struct task_struct *qtfs_kthread_run(int (*thread)(void *), void *data, const char *name)
{
	return kthread_run(thread, data, "%s", name);
}

/* Threads of the kernel ignore signals unless they say otherwise; programs cannot send this one. */
void qtfs_kthread_allow_kill(void)
{
	allow_kernel_signal(SIGKILL);
}

/* Ends killable waits of a thread that allows it, now and from now on. */
void qtfs_kthread_kill(struct task_struct *task)
{
	send_sig(SIGKILL, task, 1);
}

void qtfs_init_completion(struct completion *completion)
{
	init_completion(completion);
}

struct task_struct *qtfs_get_task_struct(struct task_struct *task)
{
	return get_task_struct(task);
}

void qtfs_put_task_struct(struct task_struct *task)
{
	put_task_struct(task);
}

/* Sockets. */

int qtfs_sock_send_bvec(struct socket *sock, const struct bio_vec *bvec, unsigned long segments,
			size_t length, unsigned int flags)
{
	struct msghdr msg = { .msg_flags = flags };

	iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, bvec, segments, length);
	return sock_sendmsg(sock, &msg);
}

int qtfs_sock_recv_bvec(struct socket *sock, const struct bio_vec *bvec, unsigned long segments,
			size_t length, unsigned int flags)
{
	struct msghdr msg = { .msg_flags = flags };

	iov_iter_bvec(&msg.msg_iter, ITER_DEST, bvec, segments, length);
	return sock_recvmsg(sock, &msg, flags);
}

int qtfs_sock_send_kvec(struct socket *sock, const struct kvec *kvec, unsigned long segments,
			size_t length, unsigned int flags)
{
	struct msghdr msg = { .msg_flags = flags };

	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, kvec, segments, length);
	return sock_sendmsg(sock, &msg);
}

int qtfs_sock_recv_kvec(struct socket *sock, const struct kvec *kvec, unsigned long segments,
			size_t length, unsigned int flags)
{
	struct msghdr msg = { .msg_flags = flags };

	iov_iter_kvec(&msg.msg_iter, ITER_DEST, kvec, segments, length);
	return sock_recvmsg(sock, &msg, flags);
}

/* For sockets that writeback waits for: no recursion into the file system. */
void qtfs_sock_set_nofs(struct socket *sock)
{
	sock->sk->sk_allocation = GFP_NOFS;
	sock->sk->sk_use_task_frag = false;
}

void qtfs_sock_set_timeouts(struct socket *sock, long receive, long send)
{
	WRITE_ONCE(sock->sk->sk_rcvtimeo, receive);
	WRITE_ONCE(sock->sk->sk_sndtimeo, send);
}

/* The address of the Ethernet interface that a connection goes out by; false when there is none. */
bool qtfs_sock_hardware_address(struct socket *sock, u8 address[ETH_ALEN])
{
	struct dst_entry *dst = sk_dst_get(sock->sk);
	bool found = false;

	if (!dst)
		return false;
	rcu_read_lock();
	if (dst->dev && dst->dev->type == ARPHRD_ETHER && is_valid_ether_addr(dst->dev->dev_addr)) {
		ether_addr_copy(address, dst->dev->dev_addr);
		found = true;
	}
	rcu_read_unlock();
	dst_release(dst);
	return found;
}

#include "alias.c"
#include "fifo.c"
#include "local.c"
#include "lock.c"
#include "mount.c"
#include "notify.c"
#include "submount.c"
#include "sysfs.c"
#include "unix.c"
#include "watch.c"
