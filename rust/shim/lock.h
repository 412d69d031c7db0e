/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Locks on files of this machine for somebody on another one. Read by bindgen
 * through shim.h.
 */
#ifndef _QTFS_LOCK_H
#define _QTFS_LOCK_H

#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/workqueue.h>

/*
 * A lock of a range that was asked for and could not be had, while no task
 * waits for it.
 *
 * @lock: among those that the lock in the way blocks; its file is held.
 * @free: what was in the way is not any more; it may be had if asked for again.
 * @tell: called once, by a worker thread, after @free is set.
 */
struct qtfs_lock_wait {
	struct file_lock lock;
	bool free;
	struct work_struct work;
	void (*tell)(void *context);
	void *context;
};

/* What is locked, how, and for whom. */
struct qtfs_lock {
	struct file *file;
	void *owner;
	unsigned int flags;
	unsigned char type;
	pid_t pid;
	loff_t start;
	loff_t end;
};

struct file_lock *qtfs_lock_alloc(const struct qtfs_lock *how);
int qtfs_lock_apply(struct file *file, struct file_lock *lock);
int qtfs_lock_test(struct file *file, struct file_lock *lock);
unsigned int qtfs_lock_ranges(const struct file *file, const void *owner);
bool qtfs_lock_is_held(struct inode *inode, const void *open);
bool qtfs_lock_can_wait(const struct qtfs_lock *how);
void qtfs_lock_wait_init(struct qtfs_lock_wait *wait, const struct qtfs_lock *how,
			 void (*tell)(void *context), void *context);
int qtfs_lock_wait_begin(struct qtfs_lock_wait *wait);
bool qtfs_lock_wait_is_free(const struct qtfs_lock_wait *wait);
void qtfs_lock_wait_end(struct qtfs_lock_wait *wait);

#endif /* _QTFS_LOCK_H */
