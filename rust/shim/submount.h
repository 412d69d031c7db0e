/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mount points of HOST, as mounts of this machine. Read by bindgen through
 * shim.h.
 */
#ifndef _QTFS_SUBMOUNT_H
#define _QTFS_SUBMOUNT_H

#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/path.h>

struct inode *qtfs_new_mount_point(struct inode *root);
struct inode *qtfs_mount_root(struct inode *inode);
bool qtfs_d_is_mount_point(const struct dentry *dentry);
void qtfs_d_set_mount_point(struct dentry *dentry);
struct dentry *qtfs_d_top(struct dentry *dentry);
int qtfs_d_manage(const struct path *path, bool rcu_walk);
struct vfsmount *qtfs_submount(const struct path *path, const char *source);
void qtfs_submounts_stop(void);

#endif
