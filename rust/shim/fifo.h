/* SPDX-License-Identifier: GPL-2.0 */
/*
 * FIFOs of this machine that are open for somebody on another one. Read by
 * bindgen through shim.h.
 */
#ifndef _QTFS_FIFO_H
#define _QTFS_FIFO_H

#include <linux/fs.h>
#include <linux/path.h>
#include <linux/pipe_fs_i.h>

struct pipe_inode_info *qtfs_fifo(struct file *file);
struct file *qtfs_fifo_open_writer(const struct path *path, int flags, unsigned int *seen);
bool qtfs_fifo_has_partner(struct file *file, unsigned int seen);
unsigned int qtfs_fifo_queued(struct file *file);

#endif
