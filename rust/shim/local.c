// SPDX-License-Identifier: GPL-2.0
/*
 * What local.h declares. Included by shim.c.
 */
#include <linux/audit.h>
#include <linux/cred.h>
#include <linux/exportfs.h>
#include <linux/fileattr.h>
#include <linux/fsnotify.h>
#include <linux/mman.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/pipe_fs_i.h>
#include <linux/poll.h>
#include <linux/posix_acl.h>
#include <linux/sched/signal.h>
#include <linux/splice.h>
#include <linux/task_work.h>
#include <linux/uio.h>

#include "local.h"

/* Objects. */

bool qtfs_d_unlinked(const struct dentry *dentry)
{
	return d_unlinked(dentry);
}

u32 qtfs_inode_generation(const struct inode *inode)
{
	return inode->i_generation;
}

bool qtfs_inode_is_posixacl(const struct inode *inode)
{
	return IS_POSIXACL(inode);
}

/*
 * Links of procfs to open files and the like have no text that the kernel
 * could ask for; they write one to user memory.
 */
bool qtfs_inode_needs_user_readlink(const struct inode *inode)
{
	return inode->i_op->readlink;
}

bool qtfs_can_decode_handle(const struct inode *inode)
{
	return exportfs_can_decode_fh(inode->i_sb->s_export_op) &&
	       !inode->i_sb->s_export_op->permission && !inode->i_sb->s_export_op->open;
}

bool qtfs_dentry_disconnected(const struct dentry *dentry)
{
	return dentry->d_flags & DCACHE_DISCONNECTED;
}

/* What @name in @dir leads to, and what is mounted there. Mounts nothing. */
int qtfs_path_entry(const struct path *dir, struct qstr *name, struct path *found)
{
	struct dentry *dentry;

	dentry = lookup_one_positive_unlocked(mnt_idmap(dir->mnt), name, dir->dentry);
	if (IS_ERR(dentry))
		return PTR_ERR(dentry);
	found->mnt = mntget(dir->mnt);
	found->dentry = dentry;
	while (follow_down_one(found))
		;
	return 0;
}

/* Whether whoever looks a name up here asks nobody but this kernel. */
bool qtfs_path_plain(const struct path *path)
{
	return !(path->dentry->d_flags & (DCACHE_OP_REVALIDATE | DCACHE_OP_WEAK_REVALIDATE |
					  DCACHE_NEED_AUTOMOUNT | DCACHE_MANAGE_TRANSIT));
}

bool qtfs_path_noexec(const struct path *path)
{
	return (path->mnt->mnt_flags & MNT_NOEXEC) ||
	       (path->mnt->mnt_sb->s_iflags & SB_I_NOEXEC);
}

bool qtfs_path_read_only(const struct path *path)
{
	return __mnt_is_readonly(path->mnt);
}

struct path qtfs_file_path(const struct file *file)
{
	struct path path = file->f_path;

	path_get(&path);
	return path;
}

int qtfs_get_write_access(struct inode *inode)
{
	return get_write_access(inode);
}

void qtfs_put_write_access(struct inode *inode)
{
	put_write_access(inode);
}

int qtfs_inode_append_only(const struct inode *inode)
{
	return IS_APPEND(inode);
}

bool qtfs_file_can_poll(struct file *file)
{
	return file_can_poll(file);
}

unsigned int qtfs_poll_now(struct file *file)
{
	return (__force unsigned int)vfs_poll(file, NULL);
}

void qtfs_do_delayed_call(struct delayed_call *call)
{
	do_delayed_call(call);
}

/* As syncfs(2), for which @since would be the open file's. */
int qtfs_sync_super(struct super_block *sb, errseq_t *since)
{
	int ret, late;

	down_read(&sb->s_umount);
	ret = sync_filesystem(sb);
	up_read(&sb->s_umount);
	late = errseq_check_and_advance(&sb->s_wb_err, since);
	return ret ? ret : late;
}

/* As open(2): the errors of writing back that nobody was told of are news. */
errseq_t qtfs_super_errors(struct super_block *sb)
{
	return errseq_sample(&sb->s_wb_err);
}

void qtfs_posix_acl_release(struct posix_acl *acl)
{
	posix_acl_release(acl);
}

/* As may_create_in_sticky() for regular files, where fs.protected_regular is @level. */
bool qtfs_sticky_protects(const struct path *dir, const struct path *file, unsigned int level)
{
	const struct inode *parent = d_inode(dir->dentry);
	vfsuid_t owner = i_uid_into_vfsuid(mnt_idmap(file->mnt), d_inode(file->dentry));

	if (!level || !(parent->i_mode & S_ISVTX))
		return false;
	if (vfsuid_eq(owner, i_uid_into_vfsuid(mnt_idmap(dir->mnt), parent)) ||
	    vfsuid_eq_kuid(owner, current_fsuid()))
		return false;
	return (parent->i_mode & 0002) || (level >= 2 && (parent->i_mode & 0020));
}

/* Not vfs_get_link(), which would follow links of procfs. */
const char *qtfs_link_text(struct dentry *dentry, struct delayed_call *call)
{
	if (!d_is_symlink(dentry) || d_inode(dentry)->i_op->readlink)
		return ERR_PTR(-EINVAL);
	return vfs_get_link(dentry, call);
}

/* Attributes. */

void qtfs_iattr_set_owner(struct iattr *attr, uid_t uid)
{
	attr->ia_vfsuid = VFSUIDT_INIT(make_kuid(&init_user_ns, uid));
}

void qtfs_iattr_set_group(struct iattr *attr, gid_t gid)
{
	attr->ia_vfsgid = VFSGIDT_INIT(make_kgid(&init_user_ns, gid));
}

void qtfs_file_kattr_from_flags(struct file_kattr *fa, u32 flags)
{
	fileattr_fill_flags(fa, flags);
}

void qtfs_file_kattr_from_xflags(struct file_kattr *fa, u32 xflags)
{
	fileattr_fill_xflags(fa, xflags);
}

/* Data. */

ssize_t qtfs_file_read_bvec(struct file *file, const struct bio_vec *bvec, unsigned long segments,
			    size_t length, loff_t *pos, int iocb_flags)
{
	struct kiocb iocb;
	struct iov_iter iter;
	ssize_t ret;

	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = *pos;
	iocb.ki_flags |= iocb_flags;
	iov_iter_bvec(&iter, ITER_DEST, bvec, segments, length);
	ret = vfs_iocb_iter_read(file, &iocb, &iter);
	*pos = iocb.ki_pos;
	return ret;
}

ssize_t qtfs_file_write_bvec(struct file *file, const struct bio_vec *bvec, unsigned long segments,
			     size_t length, loff_t *pos, int rwf_flags)
{
	struct iov_iter iter;

	iov_iter_bvec(&iter, ITER_SOURCE, bvec, segments, length);
	return vfs_iter_write(file, &iter, pos, (__force rwf_t)rwf_flags);
}

/* Many files of procfs and debugfs know only user memory. */
ssize_t qtfs_file_read_user(struct file *file, unsigned long address, size_t length, loff_t *pos)
{
	ssize_t ret;

	if (!(file->f_mode & FMODE_READ))
		return -EBADF;
	if (!(file->f_mode & FMODE_CAN_READ) || !file->f_op->read)
		return -EINVAL;
	ret = rw_verify_area(READ, file, pos, length);
	if (ret)
		return ret;
	return file->f_op->read(file, (char __user *)address, length, pos);
}

ssize_t qtfs_file_write_user(struct file *file, unsigned long address, size_t length, loff_t *pos)
{
	ssize_t ret;

	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	if (!(file->f_mode & FMODE_CAN_WRITE) || !file->f_op->write)
		return -EINVAL;
	ret = rw_verify_area(WRITE, file, pos, length);
	if (ret)
		return ret;
	file_start_write(file);
	ret = file->f_op->write(file, (const char __user *)address, length, pos);
	if (ret > 0)
		fsnotify_modify(file);
	file_end_write(file);
	return ret;
}

struct qtfs_page_sink {
	int (*take)(void *context, struct page *page, unsigned int offset, unsigned int length);
	void *context;
};

static int qtfs_splice_actor(struct pipe_inode_info *pipe, struct pipe_buffer *buf,
			     struct splice_desc *sd)
{
	struct qtfs_page_sink *sink = sd->u.data;
	int ret = sink->take(sink->context, buf->page, buf->offset, sd->len);

	return ret ? ret : sd->len;
}

static int qtfs_splice_direct_actor(struct pipe_inode_info *pipe, struct splice_desc *sd)
{
	return __splice_from_pipe(pipe, sd, qtfs_splice_actor);
}

/* Hands pages of the page cache to @take instead of copying them. */
ssize_t qtfs_file_read_pages(struct file *file, loff_t pos, size_t length,
			     int (*take)(void *context, struct page *page, unsigned int offset,
					 unsigned int length),
			     void *context)
{
	struct qtfs_page_sink sink = { .take = take, .context = context };
	struct splice_desc sd = { .total_len = length, .pos = pos, .u.data = &sink };
	ssize_t ret = rw_verify_area(READ, file, &pos, length);

	return ret ? ret : splice_direct_to_actor(file, &sd, qtfs_splice_direct_actor);
}

/* Whether what splice_read hands out are pages of the page cache. */
bool qtfs_file_readable_pages(const struct file *file)
{
	return (file->f_mode & FMODE_LSEEK) && !(file->f_flags & O_DIRECT) &&
	       !IS_DAX(file_inode(file)) && S_ISREG(file_inode(file)->i_mode) &&
	       file->f_op->splice_read && file->f_op->splice_read != copy_splice_read;
}

bool qtfs_file_has_read_iter(const struct file *file)
{
	return file->f_op->read_iter;
}

bool qtfs_file_has_write_iter(const struct file *file)
{
	return file->f_op->write_iter;
}

bool qtfs_current_has_mm(void)
{
	return current->mm && !(current->flags & PF_KTHREAD);
}

/* Anonymous memory of the current process; an error as in IS_ERR_VALUE(). */
unsigned long qtfs_map_memory(size_t length)
{
	return vm_mmap(NULL, 0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0);
}

/* The caller's identity and the current thread. */

void qtfs_cred_set_user(struct cred *cred, uid_t uid, gid_t gid)
{
	cred->uid = cred->euid = cred->suid = cred->fsuid = make_kuid(&init_user_ns, uid);
	cred->gid = cred->egid = cred->sgid = cred->fsgid = make_kgid(&init_user_ns, gid);
}

void qtfs_cred_limit_caps(struct cred *cred, u64 caps)
{
	kernel_cap_t limit = { .val = caps };

	cred->cap_effective = cap_intersect(cred->cap_effective, limit);
}

void qtfs_group_info_set(struct group_info *groups, int index, gid_t gid)
{
	groups->gid[index] = make_kgid(&init_user_ns, gid);
}

/*
 * Makes interruptible waits of @task end as if a signal had come, now and until
 * it calls qtfs_task_cancel_done(). The flag is set before the state is read,
 * and whoever goes to sleep sets the state before it reads the flag, so one of
 * the two sees the other. A task that sleeps uninterruptibly is left alone.
 */
void qtfs_task_cancel(struct task_struct *task)
{
	set_tsk_thread_flag(task, TIF_NOTIFY_SIGNAL);
	smp_mb__after_atomic();
	if (READ_ONCE(task->__state) & TASK_INTERRUPTIBLE)
		wake_up_process(task);
}

void qtfs_task_cancel_done(void)
{
	/* Work that was added with TWA_SIGNAL keeps the flag until it has run. */
	if (!task_work_pending(current))
		clear_notify_signal();
}

bool qtfs_task_has_work(void)
{
	return task_work_pending(current);
}

bool qtfs_task_sigpending(void)
{
	return task_sigpending(current);
}

/*
 * A system call that serves other machines may last for days, and auditing
 * would collect every path that is looked up until its end. Meanwhile there is
 * nothing to collect in.
 */
void *qtfs_audit_suspend(void)
{
	struct audit_context *context = audit_context();

	audit_set_context(current, NULL);
	return context;
}

void qtfs_audit_resume(void *context)
{
	audit_set_context(current, context);
}
