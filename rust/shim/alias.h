/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Second names for socket inodes, so that a process can bind a socket to an
 * inode that exists. Read by bindgen through shim.h.
 */
#ifndef _QTFS_ALIAS_H
#define _QTFS_ALIAS_H

#include <linux/fs.h>
#include <linux/path.h>

int qtfs_aliases_start(void);
void qtfs_aliases_stop(void);
int qtfs_aliases_directory(void);
struct file *qtfs_alias_open(struct inode *inode);
struct file *qtfs_path_open(const struct path *path);
void qtfs_aliases_detach(struct super_block *sb);
int qtfs_install_file(struct file *file);

#endif
