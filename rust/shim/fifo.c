// SPDX-License-Identifier: GPL-2.0
/*
 * What fifo.h declares; included by shim.c.
 *
 * open(2) of a FIFO waits for the other end, and counts as an end of its own
 * meanwhile: it lets others go on that wait for it. Nobody may wait here, so
 * files are open at once, and it is asked whether the other end has come. For
 * reading that is what O_NONBLOCK does. For writing O_NONBLOCK fails as long as
 * nobody reads, so a reader is pretended for as long as opening takes; those
 * who wait for one look at the number of readers that ever came, which stays.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/pipe_fs_i.h>
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

static struct file *qtfs_fifo_open_both(const struct path *path, const struct cred *engine)
{
	return dentry_open(path, O_RDWR | O_NONBLOCK | O_LARGEFILE, engine);
}

static void qtfs_fifo_put(const struct path *path, struct pipe_inode_info *pipe,
			  const struct cred *engine)
{
	struct inode *inode = d_inode(path->dentry);
	struct file *both = NULL;

	/* Only a file can free the pipe. Without memory for one the next to open it does. */
	if (READ_ONCE(pipe->files) == 1)
		both = qtfs_fifo_open_both(path, engine);
	spin_lock(&inode->i_lock);
	if (pipe->files > 1)
		pipe->files--;
	spin_unlock(&inode->i_lock);
	if (!IS_ERR_OR_NULL(both))
		__fput_sync(both);
}

/*
 * Opens a FIFO for writing, with @flags. @seen is for qtfs_fifo_has_partner();
 * @engine may open it in any way.
 */
struct file *qtfs_fifo_open_writer(const struct path *path, int flags, const struct cred *engine,
				   unsigned int *seen)
{
	struct inode *inode = d_inode(path->dentry);
	struct pipe_inode_info *pipe;
	struct file *file, *both;

	file = file_open_root(path, "", flags | O_NONBLOCK, 0);
	if (!IS_ERR(file)) {
		/* There was a reader, who may be gone by now. */
		pipe = qtfs_fifo(file);
		*seen = pipe ? READ_ONCE(pipe->r_counter) - 1 : 0;
		return file;
	}
	if (PTR_ERR(file) != -ENXIO)
		return file;
	pipe = qtfs_fifo_hold(inode);
	if (!pipe) {
		/* Nobody has it open, so nobody waits who could take this for a reader. */
		both = qtfs_fifo_open_both(path, engine);
		if (IS_ERR(both))
			return both;
		pipe = qtfs_fifo(both);
		*seen = pipe ? READ_ONCE(pipe->r_counter) : 0;
		file = pipe ? file_open_root(path, "", flags | O_NONBLOCK, 0) : ERR_PTR(-EOPNOTSUPP);
		__fput_sync(both);
		return file;
	}
	mutex_lock(&pipe->mutex);
	pipe->readers++;
	*seen = pipe->r_counter;
	mutex_unlock(&pipe->mutex);
	file = file_open_root(path, "", flags | O_NONBLOCK, 0);
	mutex_lock(&pipe->mutex);
	if (!--pipe->readers)
		wake_up_interruptible_all(&pipe->wr_wait);
	/*
	 * Also for writers that wait in open(2): a reader who came meanwhile was
	 * not the first and has woken nobody, see fifo_open().
	 */
	wake_up_interruptible_all(&pipe->rd_wait);
	mutex_unlock(&pipe->mutex);
	qtfs_fifo_put(path, pipe, engine);
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
