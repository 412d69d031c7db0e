/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Changes that inotify(7) and fanotify(7) tell of: of files of this machine for
 * somebody on another one, and the other way round. Read by bindgen through
 * shim.h.
 */
#ifndef _QTFS_NOTIFY_H
#define _QTFS_NOTIFY_H

#include <linux/fs.h>
#include <linux/fsnotify_backend.h>
#include <linux/workqueue.h>

/*
 * Something that happened.
 *
 * @watch: whose number is told without a name, or with that of an entry of it.
 * @parent: the directory whose number is told, with the name of what it
 *	happened to.
 * Both are 0 if nobody watches there.
 */
struct qtfs_notice {
	u64 watch;
	u64 parent;
	u32 mask;
	u32 cookie;
	const unsigned char *name;
	unsigned int len;
};

/*
 * Listens to what happens to some inodes.
 *
 * @event: called by whoever does something, often with locks of its file system
 *	held.
 * @pump: called by a worker thread, never twice at the same time, some time
 *	after qtfs_notifier_pump().
 */
struct qtfs_notifier {
	struct fsnotify_group *group;
	struct work_struct work;
	void (*event)(void *context, const struct qtfs_notice *notice);
	void (*pump)(void *context);
	void *context;
};

/*
 * The inode stays in memory as long as it is watched, and so does the number.
 *
 * @top, @top_generation: the directory that entries of a watched one are below
 *	of, or they are not told.
 */
struct qtfs_notify_mark {
	struct fsnotify_mark mark;
	u64 watch;
	u64 top;
	u32 top_generation;
};

int qtfs_notifier_init(struct qtfs_notifier *notifier,
		       void (*event)(void *context, const struct qtfs_notice *notice),
		       void (*pump)(void *context), void *context);
void qtfs_notifier_end(struct qtfs_notifier *notifier);
void qtfs_notifier_pump(struct qtfs_notifier *notifier);
struct qtfs_notify_mark *qtfs_notify_add(struct qtfs_notifier *notifier, struct inode *inode,
					 const struct inode *top, u64 watch, u32 mask);
void qtfs_notify_change(struct qtfs_notify_mark *mark, u32 mask, bool add);
void qtfs_notify_remove(struct qtfs_notifier *notifier, struct qtfs_notify_mark *mark);

/* The other side: inodes of ours that are watched. */
u32 qtfs_notify_wanted(void);
u32 qtfs_notify_watched(const struct inode *inode);
void qtfs_notify_tell(struct inode *inode, u32 mask, const unsigned char *name, unsigned int len,
		      u32 cookie);
void qtfs_notify_tell_parent(struct inode *dir, struct inode *child, u32 mask,
			     const unsigned char *name, unsigned int len);
void qtfs_notify_gone(struct inode *inode);

#endif /* _QTFS_NOTIFY_H */
