/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Waiting until a file is ready, without a task that waits. Read by bindgen
 * through shim.h.
 */
#ifndef _QTFS_WATCH_H
#define _QTFS_WATCH_H

#include <linux/fs.h>
#include <linux/poll.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

/* Most wait queues of one file: terminals have two, pipes and sockets fewer. */
#define QTFS_WATCH_QUEUES 4

struct qtfs_watch;

/* A place in a wait queue of the file. */
struct qtfs_watch_entry {
	wait_queue_entry_t wait;
	/* NULL once the queue has gone away before the file. */
	wait_queue_head_t *head;
	struct qtfs_watch *watch;
};

/*
 * @armed: what is told of, and is then taken out of it; 0 when nobody waits.
 * @fired: what @tell is going to be told of.
 * @tell: called by a worker thread, never twice at the same time.
 */
struct qtfs_watch {
	poll_table table;
	struct qtfs_watch_entry entries[QTFS_WATCH_QUEUES];
	unsigned int count;
	int error;
	atomic_t armed;
	atomic_t fired;
	struct work_struct work;
	void (*tell)(void *context, unsigned int events);
	void *context;
};

void qtfs_watch_init(struct qtfs_watch *watch, void (*tell)(void *context, unsigned int events),
		     void *context);
int qtfs_watch_poll(struct qtfs_watch *watch, struct file *file, unsigned int wake,
		    unsigned int *ready);
void qtfs_watch_end(struct qtfs_watch *watch);

/* The other side: files of ours that are waited for. */
void qtfs_poll_wait(struct file *file, wait_queue_head_t *head, struct poll_table_struct *table);
unsigned int qtfs_poll_requested(const struct poll_table_struct *table);
bool qtfs_poll_has_waiters(wait_queue_head_t *head);
int qtfs_poll_sleep(wait_queue_head_t *head, const unsigned int *generation, unsigned int seen);
int qtfs_poll_sleep_firmly(wait_queue_head_t *head, const unsigned int *generation,
			   unsigned int seen, unsigned int ms);
void qtfs_poll_wake(wait_queue_head_t *head, unsigned int events);
void qtfs_poll_init(wait_queue_head_t *head);

#endif /* _QTFS_WATCH_H */
