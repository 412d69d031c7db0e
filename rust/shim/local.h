/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inline functions and macros of the kernel that the server's layer over
 * local files needs, as in shim.h. Read by bindgen through shim.h.
 */
#ifndef _QTFS_LOCAL_H
#define _QTFS_LOCAL_H

#include <linux/cred.h>
#include <linux/exportfs.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/path.h>
#include <linux/splice.h>

/* Objects. */
bool qtfs_d_unlinked(const struct dentry *dentry);
u32 qtfs_inode_generation(const struct inode *inode);
bool qtfs_inode_is_posixacl(const struct inode *inode);
bool qtfs_inode_needs_user_readlink(const struct inode *inode);
bool qtfs_can_decode_handle(const struct inode *inode);
bool qtfs_dentry_disconnected(const struct dentry *dentry);
int qtfs_path_entry(const struct path *dir, struct qstr *name, struct path *found);
bool qtfs_path_plain(const struct path *path);
bool qtfs_path_noexec(const struct path *path);
bool qtfs_path_read_only(const struct path *path);
struct path qtfs_file_path(const struct file *file);
int qtfs_get_write_access(struct inode *inode);
void qtfs_put_write_access(struct inode *inode);
int qtfs_inode_append_only(const struct inode *inode);
bool qtfs_file_can_poll(struct file *file);
unsigned int qtfs_poll_now(struct file *file);
void qtfs_do_delayed_call(struct delayed_call *call);
int qtfs_sync_super(struct super_block *sb, errseq_t *since);
errseq_t qtfs_super_errors(struct super_block *sb);
void qtfs_posix_acl_release(struct posix_acl *acl);
bool qtfs_sticky_protects(const struct path *dir, const struct path *file, unsigned int level);
const char *qtfs_link_text(struct dentry *dentry, struct delayed_call *call);

/* Attributes. */
void qtfs_iattr_set_owner(struct iattr *attr, uid_t uid);
void qtfs_iattr_set_group(struct iattr *attr, gid_t gid);
void qtfs_file_kattr_from_flags(struct file_kattr *fa, u32 flags);
void qtfs_file_kattr_from_xflags(struct file_kattr *fa, u32 xflags);

/* Data. */
ssize_t qtfs_file_read_bvec(struct file *file, const struct bio_vec *bvec, unsigned long segments,
			    size_t length, loff_t *pos, int iocb_flags);
ssize_t qtfs_file_write_bvec(struct file *file, const struct bio_vec *bvec, unsigned long segments,
			     size_t length, loff_t *pos, int rwf_flags);
ssize_t qtfs_file_read_user(struct file *file, unsigned long address, size_t length, loff_t *pos);
ssize_t qtfs_file_write_user(struct file *file, unsigned long address, size_t length, loff_t *pos);
ssize_t qtfs_file_read_pages(struct file *file, loff_t pos, size_t length,
			     int (*take)(void *context, struct page *page, unsigned int offset,
					 unsigned int length),
			     void *context);
bool qtfs_file_readable_pages(const struct file *file);
bool qtfs_file_has_read_iter(const struct file *file);
bool qtfs_file_has_write_iter(const struct file *file);
bool qtfs_current_has_mm(void);
unsigned long qtfs_map_memory(size_t length);

/* The caller's identity and the current thread. */
void qtfs_cred_set_user(struct cred *cred, uid_t uid, gid_t gid);
void qtfs_cred_limit_caps(struct cred *cred, u64 caps);
void qtfs_group_info_set(struct group_info *groups, int index, gid_t gid);
void qtfs_task_cancel(struct task_struct *task);
void qtfs_task_cancel_done(void);
bool qtfs_task_has_work(void);
bool qtfs_task_sigpending(void);
void *qtfs_audit_suspend(void);
void qtfs_audit_resume(void *context);

#endif /* _QTFS_LOCAL_H */
