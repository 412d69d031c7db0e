// SPDX-License-Identifier: GPL-2.0
/*
 * What lock.h declares. Included by shim.c.
 */
#include <linux/filelock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "lock.h"

static void qtfs_lock_fill(struct file_lock *lock, const struct qtfs_lock *how)
{
	lock->c.flc_file = how->file;
	lock->c.flc_owner = how->owner;
	lock->c.flc_flags = how->flags;
	lock->c.flc_type = how->type;
	lock->c.flc_pid = how->pid;
	lock->fl_start = how->start;
	lock->fl_end = how->end;
}

struct file_lock *qtfs_lock_alloc(const struct qtfs_lock *how)
{
	struct file_lock *lock = locks_alloc_lock();

	if (lock)
		qtfs_lock_fill(lock, how);
	return lock;
}

/* As flock(2) and fcntl(2) do it; waits when the lock has FL_SLEEP. */
int qtfs_lock_apply(struct file *file, struct file_lock *lock)
{
	bool wait = lock->c.flc_flags & FL_SLEEP;
	int ret;

	if (lock->c.flc_flags & FL_FLOCK) {
		if (file->f_op->flock)
			return file->f_op->flock(file, wait ? F_SETLKW : F_SETLK, lock);
		return locks_lock_file_wait(file, lock);
	}
	for (;;) {
		ret = vfs_lock_file(file, wait ? F_SETLKW : F_SETLK, lock, NULL);
		if (ret != FILE_LOCK_DEFERRED)
			break;
		ret = wait_event_interruptible(lock->c.flc_wait,
					       list_empty(&lock->c.flc_blocked_member));
		if (ret)
			break;
	}
	locks_delete_block(lock);
	return ret;
}

int qtfs_lock_test(struct file *file, struct file_lock *lock)
{
	return vfs_test_lock(file, lock);
}

/* How many locks of ranges @owner has on what @file is open on. */
unsigned int qtfs_lock_ranges(const struct file *file, const void *owner)
{
	struct file_lock_context *context = locks_inode_context(file_inode(file));
	struct file_lock *lock;
	unsigned int count = 0;

	if (!context)
		return 0;
	spin_lock(&context->flc_lock);
	list_for_each_entry(lock, &context->flc_posix, c.flc_list)
		count += lock->c.flc_owner == owner;
	spin_unlock(&context->flc_lock);
	return count;
}

static void qtfs_lock_wait_work(struct work_struct *work)
{
	struct qtfs_lock_wait *wait = container_of(work, struct qtfs_lock_wait, work);

	wait->tell(wait->context);
}

/* Called with a spinlock held, as lockd's. */
static void qtfs_lock_notify(struct file_lock *lock)
{
	struct qtfs_lock_wait *wait = container_of(lock, struct qtfs_lock_wait, lock);

	smp_store_release(&wait->free, true);
	queue_work(system_dfl_wq, &wait->work);
}

static const struct lock_manager_operations qtfs_lock_operations = {
	.lm_notify = qtfs_lock_notify,
};

/*
 * Whether a lock can be waited for without a task. Those of flock(2) cannot
 * from a module, nor those that a file system has its own way with.
 */
bool qtfs_lock_can_wait(const struct qtfs_lock *how)
{
	return (how->flags & FL_POSIX) && !how->file->f_op->lock;
}

void qtfs_lock_wait_init(struct qtfs_lock_wait *wait, const struct qtfs_lock *how,
			 void (*tell)(void *context), void *context)
{
	locks_init_lock(&wait->lock);
	qtfs_lock_fill(&wait->lock, how);
	get_file(how->file);
	wait->lock.c.flc_flags |= FL_SLEEP;
	wait->lock.fl_lmops = &qtfs_lock_operations;
	wait->free = false;
	INIT_WORK(&wait->work, qtfs_lock_wait_work);
	wait->tell = tell;
	wait->context = context;
}

/*
 * Takes the lock, or begins to wait for it: FILE_LOCK_DEFERRED. Once, and only
 * if qtfs_lock_can_wait().
 */
int qtfs_lock_wait_begin(struct qtfs_lock_wait *wait)
{
	return posix_lock_file(wait->lock.c.flc_file, &wait->lock, NULL);
}

bool qtfs_lock_wait_is_free(const struct qtfs_lock_wait *wait)
{
	return smp_load_acquire(&wait->free);
}

/* Afterwards nothing is told any more. */
void qtfs_lock_wait_end(struct qtfs_lock_wait *wait)
{
	locks_delete_block(&wait->lock);
	cancel_work_sync(&wait->work);
	locks_release_private(&wait->lock);
	fput(wait->lock.c.flc_file);
}

static bool qtfs_lock_is_of(struct list_head *list, const void *open)
{
	struct file_lock *lock;

	list_for_each_entry(lock, list, c.flc_list) {
		if (lock->c.flc_file->private_data == open)
			return true;
	}
	return false;
}

/* Whether a lock is recorded on @inode that was taken through a file that keeps @open. */
bool qtfs_lock_is_held(struct inode *inode, const void *open)
{
	struct file_lock_context *context = locks_inode_context(inode);
	bool held;

	if (!context)
		return false;
	spin_lock(&context->flc_lock);
	held = qtfs_lock_is_of(&context->flc_posix, open) ||
	       qtfs_lock_is_of(&context->flc_flock, open);
	spin_unlock(&context->flc_lock);
	return held;
}
