// SPDX-License-Identifier: GPL-2.0
/*
 * What watch.h declares. Included by shim.c.
 */
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "fifo.h"
#include "watch.h"

static void qtfs_watch_work(struct work_struct *work)
{
	struct qtfs_watch *watch = container_of(work, struct qtfs_watch, work);
	unsigned int fired = atomic_xchg(&watch->fired, 0);

	if (fired)
		watch->tell(watch->context, fired);
}

/* Called with the lock of the wait queue held. */
static int qtfs_watch_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct qtfs_watch_entry *entry = container_of(wait, struct qtfs_watch_entry, wait);
	struct qtfs_watch *watch = entry->watch;
	unsigned int events = (__force unsigned int)key_to_poll(key);
	bool gone = events & (__force unsigned int)POLLFREE;
	int armed, fired;

	/* Not everybody says what happened. */
	if (!events || gone)
		events = ~0U;
	armed = atomic_read(&watch->armed);
	do {
		fired = armed & events;
	} while (fired && !atomic_try_cmpxchg(&watch->armed, &armed, armed & ~fired));
	if (fired) {
		atomic_or(fired, &watch->fired);
		queue_work(system_dfl_wq, &watch->work);
	}
	if (gone) {
		/* As in fs/eventpoll.c; afterwards nothing keeps the watch. */
		list_del_init(&wait->entry);
		smp_store_release(&entry->head, NULL);
	}
	return 1;
}

static void qtfs_watch_queue(struct file *file, wait_queue_head_t *head, poll_table *table)
{
	struct qtfs_watch *watch = container_of(table, struct qtfs_watch, table);
	struct qtfs_watch_entry *entry;

	if (watch->count == QTFS_WATCH_QUEUES) {
		watch->error = -E2BIG;
		return;
	}
	entry = &watch->entries[watch->count++];
	entry->watch = watch;
	entry->head = head;
	init_waitqueue_func_entry(&entry->wait, qtfs_watch_wake);
	add_wait_queue(head, &entry->wait);
}

void qtfs_watch_init(struct qtfs_watch *watch, void (*tell)(void *context, unsigned int events),
		     void *context)
{
	memset(watch, 0, sizeof(*watch));
	INIT_WORK(&watch->work, qtfs_watch_work);
	watch->tell = tell;
	watch->context = context;
}

/*
 * What @file is ready for. From now on the first of each of @wake is told of;
 * with 0 nothing changes. One caller at a time, and always the same @file.
 */
int qtfs_watch_poll(struct qtfs_watch *watch, struct file *file, unsigned int wake,
		    unsigned int *ready)
{
	struct pipe_inode_info *pipe;

	/* Some files have a queue only after something was written to them. */
	while (watch->count && !smp_load_acquire(&watch->entries[watch->count - 1].head))
		watch->count--;
	init_poll_funcptr(&watch->table, wake && !watch->count ? qtfs_watch_queue : NULL);
	/* Errors and hang-ups are waited for by everybody. */
	if (wake) {
		atomic_or(wake | (__force unsigned int)(EPOLLERR | EPOLLHUP), &watch->armed);
		/* Pairs with the one of wq_has_sleeper(): poll_wait() has none when nothing is queued. */
		smp_mb__after_atomic();
	}
	*ready = (__force unsigned int)vfs_poll(file, &watch->table);
	/* Who opens a FIFO for reading is told of where readers wait. */
	pipe = file->f_mode & FMODE_READ ? NULL : qtfs_fifo(file);
	if (pipe && watch->table._qproc && watch->count == 1)
		qtfs_watch_queue(file, &pipe->rd_wait, &watch->table);
	return watch->error;
}

/* Afterwards nothing is told any more. Before the file is closed. */
void qtfs_watch_end(struct qtfs_watch *watch)
{
	for (unsigned int i = 0; i < watch->count; i++) {
		struct qtfs_watch_entry *entry = &watch->entries[i];
		wait_queue_head_t *head;

		/* See qtfs_watch_wake(): queues are freed after a grace period. */
		rcu_read_lock();
		head = smp_load_acquire(&entry->head);
		if (head)
			remove_wait_queue(head, &entry->wait);
		rcu_read_unlock();
	}
	cancel_work_sync(&watch->work);
}

void qtfs_poll_init(wait_queue_head_t *head)
{
	init_waitqueue_head(head);
}

void qtfs_poll_wait(struct file *file, wait_queue_head_t *head, struct poll_table_struct *table)
{
	poll_wait(file, head, table);
}

unsigned int qtfs_poll_requested(const struct poll_table_struct *table)
{
	return (__force unsigned int)poll_requested_events(table);
}

bool qtfs_poll_has_waiters(wait_queue_head_t *head)
{
	return wq_has_sleeper(head);
}

/* Waits until @generation is not @seen; whoever changes it wakes the queue. */
int qtfs_poll_sleep(wait_queue_head_t *head, const unsigned int *generation, unsigned int seen)
{
	return wait_event_interruptible(*head, READ_ONCE(*generation) != seen);
}

/* As qtfs_poll_sleep(); in the first @ms milliseconds only for signals that kill. */
int qtfs_poll_sleep_firmly(wait_queue_head_t *head, const unsigned int *generation,
			   unsigned int seen, unsigned int ms)
{
	long left = wait_event_killable_timeout(*head, READ_ONCE(*generation) != seen,
						msecs_to_jiffies(ms));

	if (left)
		return left < 0 ? left : 0;
	return qtfs_poll_sleep(head, generation, seen);
}

/* With 0 whoever waits is woken. */
void qtfs_poll_wake(wait_queue_head_t *head, unsigned int events)
{
	__wake_up(head, TASK_NORMAL, 0, poll_to_key((__force __poll_t)events));
}
