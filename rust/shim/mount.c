// SPDX-License-Identifier: GPL-2.0
/* See mount.h; included by shim.c. */
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/fcntl.h>
#include <linux/hash.h>
#include <linux/pid.h>
#include <linux/random.h>
#include <linux/siphash.h>
#include <linux/splice.h>
#include <linux/utsname.h>
#include <asm/syscall.h>
#include <asm/unistd.h>

#include "mount.h"

/*
 * Says why a mount is refused, to the caller of the new mount API and to the
 * kernel log; for mount(2) the former is the latter.
 */
void qtfs_mount_error(struct fs_context *fc, const char *message)
{
	errorf(fc, "%s: %s", fc->fs_type->name, message);
	if (fc->log.log)
		pr_err("%s: %s\n", fc->fs_type->name, message);
}

struct inode *qtfs_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

slab_flags_t qtfs_inode_cache_flags(void)
{
	return SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT;
}

void qtfs_acl_dont_cache(struct inode *inode)
{
	inode->i_acl = ACL_DONT_CACHE;
	inode->i_default_acl = ACL_DONT_CACHE;
}

bool qtfs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

/* Writers of i_size must not meet, see i_size_write(). */
void qtfs_size_lock(struct inode *inode)
{
	spin_lock(&inode->i_lock);
}

void qtfs_size_unlock(struct inode *inode)
{
	spin_unlock(&inode->i_lock);
}

dev_t qtfs_mkdev(u32 major, u32 minor)
{
	return MKDEV(major, minor);
}

u32 qtfs_major(dev_t dev)
{
	return MAJOR(dev);
}

u32 qtfs_minor(dev_t dev)
{
	return MINOR(dev);
}

/* file_dentry() of a file that is being opened, and has no inode yet. */
struct dentry *qtfs_unopened_dentry(const struct file *file)
{
	return file->f_path.dentry;
}

/* Whether the last reference to a file is gone, as in locks_remove_file(). */
bool qtfs_file_is_closing(struct file *file)
{
	return !file_count(file);
}

/* In ->flush(): whether the descriptor that is closed is the last of the file, and nothing maps it. */
bool qtfs_file_is_last(struct file *file)
{
	return file_count(file) == 1;
}

bool qtfs_d_is_root(const struct dentry *dentry)
{
	return IS_ROOT(dentry);
}

void qtfs_hash_name(struct dentry *parent, struct qstr *name, unsigned int len)
{
	name->len = len;
	name->hash = full_name_hash(parent, name->name, len);
}

uid_t qtfs_kuid(kuid_t uid)
{
	return from_kuid(&init_user_ns, uid);
}

gid_t qtfs_kgid(kgid_t gid)
{
	return from_kgid(&init_user_ns, gid);
}

/* A folio must fit into one request. */
void qtfs_mapping_set_folio_limit(struct address_space *mapping, size_t bytes)
{
	mapping_set_folio_order_range(mapping, 0, get_order(bytes));
}

int qtfs_start_writing(struct inode *inode)
{
	return filemap_fdatawrite(inode->i_mapping);
}

bool qtfs_is_dirty(struct inode *inode)
{
	return mapping_tagged(inode->i_mapping, PAGECACHE_TAG_DIRTY) ||
	       mapping_tagged(inode->i_mapping, PAGECACHE_TAG_WRITEBACK);
}

vm_fault_t qtfs_page_mkwrite(struct vm_fault *vmf, const struct iomap_ops *ops,
			     bool (*may_write)(struct file *file))
{
	struct inode *inode = file_inode(vmf->vma->vm_file);
	vm_fault_t ret = VM_FAULT_SIGBUS;

	sb_start_pagefault(inode->i_sb);
	filemap_invalidate_lock_shared(inode->i_mapping);
	if (may_write(vmf->vma->vm_file))
		ret = iomap_page_mkwrite(vmf, ops, NULL);
	filemap_invalidate_unlock_shared(inode->i_mapping);
	sb_end_pagefault(inode->i_sb);
	return ret;
}

void qtfs_mapping_lock(struct inode *inode)
{
	filemap_invalidate_lock(inode->i_mapping);
}

void qtfs_mapping_unlock(struct inode *inode)
{
	filemap_invalidate_unlock(inode->i_mapping);
}

size_t qtfs_copy_page_from_iter(struct page *page, size_t offset, size_t length,
				struct iov_iter *iter)
{
	return copy_page_from_iter(page, offset, length, iter);
}

long qtfs_splice_copy_file_range(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
				 size_t len)
{
	return splice_copy_file_range(in, pos_in, out, pos_out, len);
}

const struct group_info *qtfs_cred_groups(const struct cred *cred)
{
	return cred->group_info;
}

/* The capabilities that hold outside of user namespaces made by programs. */
u64 qtfs_cred_caps(const struct cred *cred)
{
	return cred->user_ns == &init_user_ns ? cred->cap_effective.val : 0;
}

u64 qtfs_all_caps(void)
{
	return CAP_VALID_MASK;
}

int qtfs_current_umask(void)
{
	return current_umask();
}

/* As the current task itself knows its process and itself. */
pid_t qtfs_current_tgid(void)
{
	return task_tgid_vnr(current);
}

pid_t qtfs_current_tid(void)
{
	return task_pid_vnr(current);
}

u64 qtfs_hash_owner(unsigned long owner)
{
	static siphash_key_t key __read_mostly;

	get_random_once(&key, sizeof(key));
	return siphash_1u64(owner, &key);
}

size_t qtfs_node_name(char *buf, size_t size)
{
	ssize_t len = strscpy(buf, init_utsname()->nodename, size);

	return len < 0 ? size - 1 : len;
}

/* Whether the current task is in chown(2) or one of its kin, and acts as itself. */
bool qtfs_syscall_changes_owner(void)
{
	if (current->flags & (PF_KTHREAD | PF_USER_WORKER | PF_EXITING) || in_compat_syscall())
		return false;
	if (current_cred() != current_real_cred())
		return false;

	switch (syscall_get_nr(current, current_pt_regs())) {
#ifdef __NR_chown
	case __NR_chown:
	case __NR_lchown:
#endif
	case __NR_fchown:
	case __NR_fchownat:
		return true;
	default:
		return false;
	}
}

/*
 * Whether open(2) with these flags, when it comes to a directory, asks the file
 * system to open it before it fails for what is known here.
 */
static bool opens_what_is_there(unsigned long flags)
{
	return !(flags & (O_ACCMODE | O_CREAT | O_TRUNC | O_PATH | O_NOATIME));
}

/*
 * Tells system calls that end in an operation which the server checks against
 * the path, and that walk the path again after ESTALE, from all others. Calls
 * that are not listed are treated with more care and need one more round trip.
 */
enum qtfs_reach qtfs_syscall_reach(void)
{
	unsigned long args[6];
	struct pt_regs *regs;

	if (current->flags & (PF_KTHREAD | PF_USER_WORKER | PF_EXITING) || in_compat_syscall())
		return QTFS_REACH_OTHER;
	regs = current_pt_regs();
	syscall_get_arguments(current, regs, args);

	switch (syscall_get_nr(current, regs)) {
#ifdef __NR_stat
	case __NR_stat:
	case __NR_lstat:
		return QTFS_REACH_STAT;
#endif
	case __NR_newfstatat:
		return args[3] & AT_EMPTY_PATH ? QTFS_REACH_OTHER : QTFS_REACH_STAT;
	case __NR_statx:
		return args[2] & AT_EMPTY_PATH ? QTFS_REACH_OTHER : QTFS_REACH_STAT;

#ifdef __NR_open
	case __NR_open:
		return opens_what_is_there(args[1]) ? QTFS_REACH_OPEN : QTFS_REACH_OTHER;
#endif
	case __NR_openat:
		return opens_what_is_there(args[2]) ? QTFS_REACH_OPEN : QTFS_REACH_OTHER;

	case __NR_linkat:
		return args[4] & AT_EMPTY_PATH ? QTFS_REACH_OTHER : QTFS_REACH_NO_DIRECTORY;
	case __NR_fchownat:
		return args[4] & AT_EMPTY_PATH ? QTFS_REACH_OTHER : QTFS_REACH_ANY;
	case __NR_utimensat:
		return !args[1] || args[3] & AT_EMPTY_PATH ? QTFS_REACH_OTHER : QTFS_REACH_ANY;
	case __NR_faccessat2:
	case __NR_fchmodat2:
		return args[3] & AT_EMPTY_PATH ? QTFS_REACH_OTHER : QTFS_REACH_ANY;
	case __NR_unlinkat:
		return args[2] & AT_REMOVEDIR ? QTFS_REACH_DIRECTORY : QTFS_REACH_NO_DIRECTORY;

#ifdef __NR_chmod
	case __NR_link:
	case __NR_unlink:
		return QTFS_REACH_NO_DIRECTORY;
	case __NR_rmdir:
		return QTFS_REACH_DIRECTORY;
	case __NR_rename:
		return QTFS_REACH_RENAME;
	case __NR_readlink:
		return QTFS_REACH_SYMLINK;
	case __NR_access:
	case __NR_chmod:
	case __NR_chown:
	case __NR_lchown:
	case __NR_utime:
	case __NR_utimes:
	case __NR_futimesat:
	case __NR_mkdir:
	case __NR_mknod:
	case __NR_symlink:
#endif
	case __NR_mkdirat:
	case __NR_mknodat:
	case __NR_symlinkat:
	case __NR_faccessat:
	case __NR_fchmodat:
	case __NR_statfs:
	case __NR_getxattr:
	case __NR_lgetxattr:
	case __NR_setxattr:
	case __NR_lsetxattr:
	case __NR_listxattr:
	case __NR_llistxattr:
	case __NR_removexattr:
	case __NR_lremovexattr:
		return QTFS_REACH_ANY;
#ifdef __NR_renameat
	case __NR_renameat:
#endif
	case __NR_renameat2:
		return QTFS_REACH_RENAME;
	case __NR_chdir:
	case __NR_chroot:
		return QTFS_REACH_DIRECTORY;
	case __NR_readlinkat:
		return QTFS_REACH_SYMLINK;
	case __NR_truncate:
		return QTFS_REACH_REGULAR;
	default:
		return QTFS_REACH_OTHER;
	}
}

void qtfs_signal_pipe(void)
{
	send_sig(SIGPIPE, current, 0);
}

int qtfs_put_int(unsigned long address, int value)
{
	return put_user(value, (int __user *)address);
}
