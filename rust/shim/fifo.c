// SPDX-License-Identifier: GPL-2.0
/*
 * What fifo.h declares; included by shim.c.
 *
 * open(2) of a FIFO waits for the other end, and counts as an end of its own
 * meanwhile: it lets others go on that wait for it. Nobody may wait here, so
 * files are open at once, and it is asked whether the other end has come. For
 * reading that is what O_NONBLOCK does. For writing O_NONBLOCK fails as long as
 * nobody reads, and no reader may be pretended: whoever opens the FIFO for
 * writing meanwhile would take it for one. So such files are opened without
 * fifo_open(), and are what it makes of those that wait in it.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/pipe_fs_i.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "fifo.h"

/* The pipe of an open FIFO; NULL if the file is none, or not the kernel's own. */
struct pipe_inode_info *qtfs_fifo(struct file *file)
{
	struct inode *inode = file_inode(file);
	struct pipe_inode_info *pipe = S_ISFIFO(inode->i_mode) ? READ_ONCE(inode->i_pipe) : NULL;

	return pipe == file->private_data ? pipe : NULL;
}

/* Holds the pipe of a FIFO that somebody has open. */
static struct pipe_inode_info *qtfs_fifo_hold(struct inode *inode)
{
	struct pipe_inode_info *pipe;

	spin_lock(&inode->i_lock);
	pipe = inode->i_pipe;
	if (pipe)
		pipe->files++;
	spin_unlock(&inode->i_lock);
	return pipe;
}

/*
 * Holds the pipe of a FIFO that nobody had open, and makes it if that is so
 * still. Only fifo_open() can make pipes, for who reads and writes at once, but
 * for any inode: here for @spare, which nobody else knows.
 */
static struct pipe_inode_info *qtfs_fifo_make(struct inode *inode, struct inode *spare)
{
	struct file both = { .f_mode = FMODE_READ | FMODE_WRITE };
	struct pipe_inode_info *made, *pipe;
	int ret = spare->i_fop->open(spare, &both);

	if (ret)
		return ERR_PTR(ret);
	made = both.private_data;
	spin_lock(&inode->i_lock);
	pipe = inode->i_pipe;
	if (pipe) {
		pipe->files++;
	} else {
		made->readers = 0;
		made->writers = 0;
		inode->i_pipe = made;
	}
	spin_unlock(&inode->i_lock);
	if (!pipe)
		return made;
	spare->i_fop->release(spare, &both);
	return pipe;
}

/*
 * Makes @file, which was opened with O_PATH and which nobody else knows, a
 * writer of the FIFO that it names, as fifo_open() and who calls it do.
 */
static int qtfs_fifo_enter(struct file *file, int flags, struct inode *spare, unsigned int *seen)
{
	struct inode *inode = file_inode(file);
	struct pipe_inode_info *pipe;

	/* What is not the kernel's own has no such pipe. */
	if (inode->i_fop != spare->i_fop)
		return -EOPNOTSUPP;
	pipe = qtfs_fifo_hold(inode) ?: qtfs_fifo_make(inode, spare);
	if (IS_ERR(pipe))
		return PTR_ERR(pipe);
	mutex_lock(&pipe->mutex);
	*seen = pipe->r_counter;
	pipe->w_counter++;
	if (!pipe->writers++)
		wake_up_interruptible_all(&pipe->rd_wait);
	mutex_unlock(&pipe->mutex);
	file->private_data = pipe;
	file->f_pipe = 0;
	file->f_op = spare->i_fop;
	file->f_flags = (flags | O_NONBLOCK) & ~(O_NOCTTY | O_TRUNC);
	file->f_iocb_flags = iocb_flags(file);
	/* Of those who may forbid something, none are asked about writing to a FIFO. */
	file->f_mode = FMODE_OPENED | FMODE_WRITE | FMODE_CAN_WRITE | FMODE_STREAM |
		       FMODE_NONOTIFY_PERM;
	fsnotify_open(file);
	return 0;
}

/* Opens a FIFO for writing, with @flags. @seen is for qtfs_fifo_has_partner(). */
struct file *qtfs_fifo_open_writer(const struct path *path, int flags, unsigned int *seen)
{
	struct pipe_inode_info *pipe;
	struct inode *spare;
	struct file *file;
	int ret;

	file = file_open_root(path, "", flags | O_NONBLOCK, 0);
	if (!IS_ERR(file)) {
		/* There was a reader, who may be gone by now. */
		pipe = qtfs_fifo(file);
		*seen = pipe ? READ_ONCE(pipe->r_counter) - 1 : 0;
		return file;
	}
	/* Otherwise nothing is in the way but that nobody reads. */
	if (PTR_ERR(file) != -ENXIO)
		return file;
	spare = kzalloc_obj(*spare);
	if (!spare)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&spare->i_lock);
	init_special_inode(spare, S_IFIFO, 0);
	file = dentry_open(path, O_PATH, current_cred());
	if (!IS_ERR(file)) {
		ret = qtfs_fifo_enter(file, flags, spare, seen);
		if (ret) {
			__fput_sync(file);
			file = ERR_PTR(ret);
		}
	}
	kfree(spare);
	return file;
}

/* Whether somebody has opened the other end since @file was opened. */
bool qtfs_fifo_has_partner(struct file *file, unsigned int seen)
{
	struct pipe_inode_info *pipe = qtfs_fifo(file);

	if (!pipe)
		return true;
	switch (file->f_mode & (FMODE_READ | FMODE_WRITE)) {
	case FMODE_READ:
		return READ_ONCE(pipe->writers) || file->f_pipe != READ_ONCE(pipe->w_counter);
	case FMODE_WRITE:
		return READ_ONCE(pipe->readers) || seen != READ_ONCE(pipe->r_counter);
	default:
		return true;
	}
}

/* Bytes that can be read; 0 if it is no FIFO. */
unsigned int qtfs_fifo_queued(struct file *file)
{
	struct pipe_inode_info *pipe = qtfs_fifo(file);
	unsigned int queued = 0;

	if (!pipe)
		return 0;
	mutex_lock(&pipe->mutex);
	for (unsigned int at = pipe->tail; !pipe_empty(pipe->head, at); at++)
		queued += pipe_buf(pipe, at)->len;
	mutex_unlock(&pipe->mutex);
	return queued;
}
