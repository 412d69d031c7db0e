/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inline functions and macros of the kernel that the layer under the client,
 * a file system, needs, as in shim.h. Read by bindgen through shim.h.
 */
#ifndef _QTFS_MOUNT_H
#define _QTFS_MOUNT_H

#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/iomap.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uio.h>

/* Mounting. */
void qtfs_mount_error(struct fs_context *fc, const char *message);

/* Inodes and dentries. */
struct inode *qtfs_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache);
slab_flags_t qtfs_inode_cache_flags(void);
void qtfs_acl_dont_cache(struct inode *inode);
bool qtfs_inode_is_new(struct inode *inode);
void qtfs_size_lock(struct inode *inode);
void qtfs_size_unlock(struct inode *inode);
dev_t qtfs_mkdev(u32 major, u32 minor);
u32 qtfs_major(dev_t dev);
u32 qtfs_minor(dev_t dev);
struct dentry *qtfs_unopened_dentry(const struct file *file);
bool qtfs_file_is_closing(struct file *file);
bool qtfs_file_is_last(struct file *file);
bool qtfs_d_is_root(const struct dentry *dentry);
void qtfs_hash_name(struct dentry *parent, struct qstr *name, unsigned int len);
uid_t qtfs_kuid(kuid_t uid);
gid_t qtfs_kgid(kgid_t gid);

/* The page cache. */
void qtfs_mapping_set_folio_limit(struct address_space *mapping, size_t bytes);
int qtfs_start_writing(struct inode *inode);
bool qtfs_is_dirty(struct inode *inode);
vm_fault_t qtfs_page_mkwrite(struct vm_fault *vmf, const struct iomap_ops *ops,
			     bool (*may_write)(struct file *file));
void qtfs_mapping_lock(struct inode *inode);
void qtfs_mapping_unlock(struct inode *inode);
size_t qtfs_copy_page_from_iter(struct page *page, size_t offset, size_t length,
				struct iov_iter *iter);

long qtfs_splice_copy_file_range(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
				 size_t len);

/* The current task. */
const struct group_info *qtfs_cred_groups(const struct cred *cred);
u64 qtfs_cred_caps(const struct cred *cred);
u64 qtfs_all_caps(void);
int qtfs_current_umask(void);
pid_t qtfs_current_tgid(void);
pid_t qtfs_current_tid(void);
u64 qtfs_hash_owner(unsigned long owner);
void qtfs_signal_pipe(void);
int qtfs_put_int(unsigned long address, int value);
size_t qtfs_node_name(char *buf, size_t size);

/*
 * How the current system call came to the object that it acts on: not by a
 * path, or not known; by a path, for its attributes; by a path, to open it for
 * reading whatever it is; by a path, and the kernel refuses by itself all types
 * but some.
 */
enum qtfs_reach {
	QTFS_REACH_OTHER,
	QTFS_REACH_STAT,
	QTFS_REACH_OPEN,
	QTFS_REACH_ANY,
	QTFS_REACH_RENAME,
	QTFS_REACH_SYMLINK,
	QTFS_REACH_REGULAR,
	QTFS_REACH_DIRECTORY,
	QTFS_REACH_NO_DIRECTORY,
};

enum qtfs_reach qtfs_syscall_reach(void);
bool qtfs_syscall_changes_owner(void);

/* Parameters of the module, see params.c. */
extern char qtfs_server_ip[64];
extern unsigned short qtfs_server_port;
/* Of the server's module alone. */
extern unsigned int qtfs_client_memory;
extern unsigned int qtfs_log_level;

#endif /* _QTFS_MOUNT_H */
