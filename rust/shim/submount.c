// SPDX-License-Identifier: GPL-2.0
/*
 * Mount points of HOST, as mounts of this machine; included by shim.c.
 *
 * Where HOST has mounted something, the name leads to an inode that stands for
 * the mount point. The inode of what is mounted there is the root of a mount
 * that the kernel makes on the way through, as NFS does when it crosses into
 * another file system of its server: so it is in the table of mounts, and ends
 * look-ups that are not to leave the mount. A name that does not lead there
 * any more is dropped when it is looked up, and the kernel drops with it what
 * is mounted there.
 */
#include <linux/fs_context.h>
#include <linux/mount.h>
#include <linux/mutex.h>
#include <linux/namei.h>
#include <linux/sched.h>
#include <linux/workqueue.h>

#include "submount.h"

/* How long a mount stays that nobody uses, at least. */
#define QTFS_SUBMOUNT_SECONDS 60

static LIST_HEAD(qtfs_submounts);

static void qtfs_expire_submounts(struct work_struct *work);
static DECLARE_DELAYED_WORK(qtfs_submount_work, qtfs_expire_submounts);

static void qtfs_expire_submounts(struct work_struct *work)
{
	mark_mounts_for_expiry(&qtfs_submounts);
	if (!list_empty(&qtfs_submounts))
		schedule_delayed_work(&qtfs_submount_work, QTFS_SUBMOUNT_SECONDS * HZ);
}

/* No mount is left, and none comes any more. */
void qtfs_submounts_stop(void)
{
	cancel_delayed_work_sync(&qtfs_submount_work);
}

/* Stands for the mount point of @root, whose reference goes to it. */
struct inode *qtfs_new_mount_point(struct inode *root)
{
	struct inode *inode = new_inode(root->i_sb);

	if (!inode) {
		iput(root);
		return ERR_PTR(-ENOMEM);
	}
	inode->i_ino = root->i_ino;
	inode->i_mode = root->i_mode;
	inode->i_uid = root->i_uid;
	inode->i_gid = root->i_gid;
	inode->i_flags |= S_AUTOMOUNT | S_NOATIME | S_NOCMTIME;
	inode->i_private = root;
	return inode;
}

/* What is mounted where @inode stands for the mount point; @inode otherwise. */
struct inode *qtfs_mount_root(struct inode *inode)
{
	return inode && IS_AUTOMOUNT(inode) ? inode->i_private : inode;
}

bool qtfs_d_is_mount_point(const struct dentry *dentry)
{
	return READ_ONCE(dentry->d_flags) & DCACHE_MANAGE_TRANSIT;
}

void qtfs_d_set_mount_point(struct dentry *dentry)
{
	spin_lock(&dentry->d_lock);
	dentry->d_flags |= DCACHE_MANAGE_TRANSIT;
	spin_unlock(&dentry->d_lock);
}

/* The root of the tree that an entry is in, held for the caller. */
struct dentry *qtfs_d_top(struct dentry *dentry)
{
	struct dentry *top = dget(dentry);

	while (!IS_ROOT(top)) {
		struct dentry *parent = dget_parent(top);

		dput(top);
		top = parent;
	}
	return top;
}

static DEFINE_MUTEX(qtfs_transit_lock);
/* Who holds it. */
static struct task_struct *qtfs_transit_owner;

/*
 * Makes the mount for those too for whom the kernel would not, stat(2) above
 * all: what they are told is of the mounted directory, not of the mount point.
 */
int qtfs_d_manage(const struct path *path, bool rcu_walk)
{
	struct path at = *path;
	int ret;

	if (rcu_walk || READ_ONCE(qtfs_transit_owner) == current)
		return 0;
	path_get(&at);
	if (follow_down_one(&at)) {
		path_put(&at);
		return 0;
	}
	ret = mutex_lock_killable(&qtfs_transit_lock);
	if (!ret) {
		/* Comes here once more, by d_automount's way. */
		WRITE_ONCE(qtfs_transit_owner, current);
		ret = follow_down(&at, LOOKUP_AUTOMOUNT);
		WRITE_ONCE(qtfs_transit_owner, NULL);
		mutex_unlock(&qtfs_transit_lock);
	}
	path_put(&at);
	return ret;
}

/* Makes a mount of what HOST has mounted on @path. */
struct vfsmount *qtfs_submount(const struct path *path, const char *source)
{
	struct inode *root = qtfs_mount_root(d_inode(path->dentry));
	struct fs_context *fc;
	struct dentry *dentry;
	struct vfsmount *mnt;

	fc = fs_context_for_submount(path->mnt->mnt_sb->s_type, path->dentry);
	if (IS_ERR(fc))
		return ERR_CAST(fc);
	fc->source = kstrdup(source, GFP_KERNEL);
	if (!fc->source) {
		mnt = ERR_PTR(-ENOMEM);
		goto out;
	}
	ihold(root);
	dentry = d_obtain_root(root);
	if (IS_ERR(dentry)) {
		mnt = ERR_CAST(dentry);
		goto out;
	}
	/* The context gives both back. */
	fc->root = dentry;
	atomic_inc(&dentry->d_sb->s_active);
	mnt = vfs_create_mount(fc);
	if (!IS_ERR(mnt)) {
		mnt_set_expiry(mnt, &qtfs_submounts);
		schedule_delayed_work(&qtfs_submount_work, QTFS_SUBMOUNT_SECONDS * HZ);
	}
out:
	put_fs_context(fc);
	return mnt;
}
