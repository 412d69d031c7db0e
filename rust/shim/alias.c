// SPDX-License-Identifier: GPL-2.0
/*
 * What alias.h declares; included by shim.c.
 *
 * connect(2) finds a listener by the inode that the path leads to, and bind(2)
 * makes an inode of its own. To bind a socket to an inode that is there
 * already, a process binds it in the directory of a file system that nobody
 * mounts: "N" is the name for the inode of its descriptor N, which it opened
 * with O_PATH or was given. The entry that is made there is one more alias of
 * that inode, which belongs to another file system. It is never in the hash, so
 * that nobody finds it by its name, and goes with the last socket that has it.
 *
 * A socket that is bound like this, and each connection that was accepted from
 * it, holds the inode. What holds the inode's file system meanwhile:
 *
 * - On the server the mount of the descriptor, as if the socket had been bound
 *   on that mount: HOST cannot unmount it as long as it is in use.
 * - On the client nothing. Proxies of sockets of HOST are not the business of
 *   who unmounts; qtfs_aliases_detach() gives them another inode first.
 *
 * A descriptor that qtfs_alias_open() made holds the super block.
 */
#include <linux/dcache.h>
#include <linux/file.h>
#include <linux/fs_context.h>
#include <linux/list.h>
#include <linux/mount.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>

#include "alias.h"

#define QTFS_ALIAS_MAGIC 0x71747361

struct qtfs_alias {
	struct list_head list;
	struct dentry *dentry;
	/* What is held besides the inode. */
	struct path path;
	struct super_block *sb;
};

static LIST_HEAD(qtfs_aliases);
static DEFINE_SPINLOCK(qtfs_aliases_lock);
/* Orders who makes aliases and who takes their inodes away. */
static DEFINE_MUTEX(qtfs_aliases_mutex);
static struct vfsmount *qtfs_aliases_mnt;

static void qtfs_alias_release(struct dentry *dentry)
{
	struct qtfs_alias *alias = dentry->d_fsdata;

	if (!alias)
		return;
	spin_lock(&qtfs_aliases_lock);
	list_del(&alias->list);
	spin_unlock(&qtfs_aliases_lock);
	if (alias->path.mnt)
		path_put(&alias->path);
	if (alias->sb)
		deactivate_super(alias->sb);
	kfree(alias);
}

static const struct dentry_operations qtfs_alias_dentry_operations = {
	.d_delete = always_delete_dentry,
	.d_release = qtfs_alias_release,
};

/* Makes @dentry, which is new, an alias of @inode. Called with the mutex held. */
static struct qtfs_alias *qtfs_alias_tie(struct dentry *dentry, struct inode *inode)
{
	struct qtfs_alias *alias = kzalloc_obj(*alias, GFP_KERNEL);

	if (!alias)
		return NULL;
	alias->dentry = dentry;
	dentry->d_fsdata = alias;
	ihold(inode);
	d_instantiate(dentry, inode);
	spin_lock(&qtfs_aliases_lock);
	list_add(&alias->list, &qtfs_aliases);
	spin_unlock(&qtfs_aliases_lock);
	return alias;
}

/* Not in the hash: every look-up of a name makes its own entry. */
static struct dentry *qtfs_alias_lookup(struct inode *dir, struct dentry *dentry,
					unsigned int flags)
{
	return NULL;
}

static int qtfs_alias_mknod(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			    umode_t mode, dev_t dev)
{
	struct qtfs_alias *alias;
	struct file *file;
	unsigned int fd;
	int ret = -EINVAL;

	if (!S_ISSOCK(mode) || kstrtouint(dentry->d_name.name, 10, &fd))
		return -EPERM;
	file = fget_raw(fd);
	if (!file)
		return -EBADF;
	if (!(file->f_mode & FMODE_PATH) || !S_ISSOCK(file_inode(file)->i_mode))
		goto out;
	mutex_lock(&qtfs_aliases_mutex);
	alias = qtfs_alias_tie(dentry, file_inode(file));
	ret = alias ? 0 : -ENOMEM;
	if (alias && file->f_path.mnt->mnt_sb != dentry->d_sb) {
		alias->path = file->f_path;
		path_get(&alias->path);
	}
	mutex_unlock(&qtfs_aliases_mutex);
out:
	fput(file);
	return ret;
}

static const struct inode_operations qtfs_alias_directory_operations = {
	.lookup = qtfs_alias_lookup,
	.mknod = qtfs_alias_mknod,
};

static const struct super_operations qtfs_alias_super_operations = {
	.statfs = simple_statfs,
	.drop_inode = inode_just_drop,
};

static int qtfs_alias_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct inode *root;

	sb->s_magic = QTFS_ALIAS_MAGIC;
	sb->s_op = &qtfs_alias_super_operations;
	sb->s_flags |= SB_NOUSER;
	sb->s_iflags |= SB_I_NOEXEC | SB_I_NODEV;
	set_default_d_op(sb, &qtfs_alias_dentry_operations);
	root = new_inode(sb);
	if (!root)
		return -ENOMEM;
	root->i_ino = 1;
	root->i_mode = S_IFDIR | 0700;
	root->i_op = &qtfs_alias_directory_operations;
	simple_inode_init_ts(root);
	sb->s_root = d_make_root(root);
	return sb->s_root ? 0 : -ENOMEM;
}

static int qtfs_alias_get_tree(struct fs_context *fc)
{
	return get_tree_nodev(fc, qtfs_alias_fill_super);
}

static const struct fs_context_operations qtfs_alias_context_operations = {
	.get_tree = qtfs_alias_get_tree,
};

static int qtfs_alias_init_fs_context(struct fs_context *fc)
{
	fc->ops = &qtfs_alias_context_operations;
	return 0;
}

static struct file_system_type qtfs_alias_type = {
	.name = "qtfs_alias",
	.owner = THIS_MODULE,
	.init_fs_context = qtfs_alias_init_fs_context,
	.kill_sb = kill_anon_super,
};

/*
 * Makes the file system. It is gone after qtfs_aliases_stop() once nobody uses
 * it any more; the module is held until then.
 */
int qtfs_aliases_start(void)
{
	struct vfsmount *mnt = kern_mount(&qtfs_alias_type);

	if (IS_ERR(mnt))
		return PTR_ERR(mnt);
	mutex_lock(&qtfs_aliases_mutex);
	swap(mnt, qtfs_aliases_mnt);
	mutex_unlock(&qtfs_aliases_mutex);
	kern_unmount(mnt);
	return 0;
}

void qtfs_aliases_stop(void)
{
	struct vfsmount *mnt = NULL;

	mutex_lock(&qtfs_aliases_mutex);
	swap(mnt, qtfs_aliases_mnt);
	mutex_unlock(&qtfs_aliases_mutex);
	kern_unmount(mnt);
}

/* Gives the current task a descriptor of @file, whose reference goes to it. */
int qtfs_install_file(struct file *file)
{
	int fd = get_unused_fd_flags(O_CLOEXEC);

	if (fd < 0)
		fput(file);
	else
		fd_install(fd, file);
	return fd;
}

struct file *qtfs_path_open(const struct path *path)
{
	return dentry_open(path, O_PATH | O_CLOEXEC, current_cred());
}

/* A descriptor of the directory in which sockets are bound, for the current task. */
int qtfs_aliases_directory(void)
{
	struct file *file = ERR_PTR(-ENXIO);
	struct path path;

	mutex_lock(&qtfs_aliases_mutex);
	path.mnt = qtfs_aliases_mnt;
	if (path.mnt) {
		path.dentry = path.mnt->mnt_root;
		file = qtfs_path_open(&path);
	}
	mutex_unlock(&qtfs_aliases_mutex);
	return IS_ERR(file) ? PTR_ERR(file) : qtfs_install_file(file);
}

/* An open file of @inode, as by O_PATH, which has no mount of its own. */
struct file *qtfs_alias_open(struct inode *inode)
{
	struct file *file = ERR_PTR(-ENXIO);
	struct qtfs_alias *alias;
	struct path path;

	if (!atomic_inc_not_zero(&inode->i_sb->s_active))
		return file;
	mutex_lock(&qtfs_aliases_mutex);
	path.mnt = mntget(qtfs_aliases_mnt);
	path.dentry = path.mnt ? d_alloc_anon(path.mnt->mnt_sb) : NULL;
	alias = path.dentry ? qtfs_alias_tie(path.dentry, inode) : NULL;
	if (alias) {
		alias->sb = inode->i_sb;
		file = qtfs_path_open(&path);
	} else if (path.mnt) {
		file = ERR_PTR(-ENOMEM);
	}
	mutex_unlock(&qtfs_aliases_mutex);
	dput(path.dentry);
	mntput(path.mnt);
	if (!alias)
		deactivate_super(inode->i_sb);
	return file;
}

/* Gives @dentry the inode @other in the place of one of @sb. Returns that, or NULL. */
static struct inode *qtfs_alias_exchange(struct dentry *dentry, const struct super_block *sb,
					 struct inode *other)
{
	struct inode *inode;
	bool done = false;

	rcu_read_lock();
	inode = READ_ONCE(dentry->d_inode);
	if (inode && inode->i_sb == sb) {
		spin_lock(&inode->i_lock);
		spin_lock(&dentry->d_lock);
		/* Who drops the last reference takes the inode away with both locks held. */
		done = dentry->d_inode == inode && dentry->d_lockref.count > 0;
		if (done) {
			ihold(other);
			hlist_del_init(&dentry->d_alias);
			raw_write_seqcount_begin(&dentry->d_seq);
			dentry->d_inode = other;
			raw_write_seqcount_end(&dentry->d_seq);
		}
		spin_unlock(&dentry->d_lock);
		spin_unlock(&inode->i_lock);
	}
	rcu_read_unlock();
	if (!done)
		return NULL;
	spin_lock(&other->i_lock);
	spin_lock(&dentry->d_lock);
	if (dentry->d_inode == other)
		hlist_add_head(&dentry->d_alias, &other->i_dentry);
	spin_unlock(&dentry->d_lock);
	spin_unlock(&other->i_lock);
	return inode;
}

/*
 * @sb goes away, and with it its inodes. Sockets that are bound to one go on,
 * but nobody finds them any more.
 */
void qtfs_aliases_detach(struct super_block *sb)
{
	struct qtfs_alias *alias;
	struct inode *inode;

	mutex_lock(&qtfs_aliases_mutex);
	do {
		inode = NULL;
		spin_lock(&qtfs_aliases_lock);
		list_for_each_entry(alias, &qtfs_aliases, list) {
			inode = qtfs_alias_exchange(alias->dentry, sb,
						    d_inode(alias->dentry->d_sb->s_root));
			if (inode)
				break;
		}
		spin_unlock(&qtfs_aliases_lock);
		iput(inode);
	} while (inode);
	mutex_unlock(&qtfs_aliases_mutex);
}
