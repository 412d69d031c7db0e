// SPDX-License-Identifier: GPL-2.0
/*
 * What notify.h declares. Included by shim.c.
 */
#include <linux/compat.h>
#include <linux/fsnotify_backend.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <asm/syscall.h>
#include <asm/unistd.h>

#include "notify.h"

/* What can be asked for, and what is told with it. */
#define QTFS_NOTIFY_WANTED	(FS_ACCESS | FS_MODIFY | FS_ATTRIB | FS_CLOSE_WRITE |		\
				 FS_CLOSE_NOWRITE | FS_OPEN | FS_MOVED_FROM | FS_MOVED_TO |	\
				 FS_CREATE | FS_DELETE | FS_DELETE_SELF | FS_MOVE_SELF)
#define QTFS_NOTIFY_TOLD	(QTFS_NOTIFY_WANTED | FS_UNMOUNT | FS_ISDIR)

static u64 qtfs_notify_number(struct fsnotify_mark *mark)
{
	return mark ? container_of(mark, struct qtfs_notify_mark, mark)->watch : 0;
}

static bool qtfs_notify_wants(const struct fsnotify_mark *mark, u32 mask)
{
	return mark && READ_ONCE(mark->mask) & mask & ALL_FSNOTIFY_EVENTS;
}

/*
 * Whether @dir, a watched directory, is where it may be. Without a name nothing
 * can happen to its entries.
 */
static bool qtfs_notify_inside(struct inode *dir, struct fsnotify_mark *mark)
{
	const struct qtfs_notify_mark *own = container_of(mark, struct qtfs_notify_mark, mark);
	struct dentry *at = d_find_any_alias(dir);
	bool inside = !at;

	while (at) {
		const struct inode *inode = d_inode(at);
		struct dentry *above = NULL;

		inside = inode && inode->i_ino == own->top &&
			 inode->i_generation == own->top_generation;
		if (!inside && !IS_ROOT(at))
			above = dget_parent(at);
		dput(at);
		at = above;
	}
	return inside;
}

static int qtfs_notify_event(struct fsnotify_group *group, u32 mask, const void *data, int data_type,
			     struct inode *dir, const struct qstr *name, u32 cookie,
			     struct fsnotify_iter_info *iter)
{
	struct qtfs_notifier *notifier = group->private;
	struct fsnotify_mark *parent = fsnotify_iter_parent_mark(iter);
	struct fsnotify_mark *own = fsnotify_iter_inode_mark(iter);
	struct qtfs_notice notice = {
		.mask = mask & QTFS_NOTIFY_TOLD,
		.cookie = cookie,
	};

	/* Renaming is told by its two halves. */
	if (!(mask & QTFS_NOTIFY_TOLD & ~FS_ISDIR))
		return 0;
	if (qtfs_notify_wants(parent, mask))
		notice.parent = qtfs_notify_number(parent);
	if (qtfs_notify_wants(own, mask))
		notice.watch = qtfs_notify_number(own);
	if (!notice.parent && !notice.watch)
		return 0;
	/* HOST may have moved the directory to where the client cannot go. */
	if (dir && notice.parent && !qtfs_notify_inside(dir, parent))
		notice.parent = 0;
	if (dir && notice.watch && mask & ALL_FSNOTIFY_DIRENT_EVENTS &&
	    !qtfs_notify_inside(dir, own))
		notice.watch = 0;
	if (!notice.parent && !notice.watch)
		return 0;
	if (name && (notice.parent || mask & ALL_FSNOTIFY_DIRENT_EVENTS)) {
		notice.name = name->name;
		notice.len = name->len;
	}
	notifier->event(notifier->context, &notice);
	return 0;
}

static void qtfs_notify_free(struct fsnotify_mark *mark)
{
	kfree(container_of(mark, struct qtfs_notify_mark, mark));
}

static const struct fsnotify_ops qtfs_notify_operations = {
	.handle_event = qtfs_notify_event,
	.free_mark = qtfs_notify_free,
};

static void qtfs_notifier_work(struct work_struct *work)
{
	struct qtfs_notifier *notifier = container_of(work, struct qtfs_notifier, work);

	notifier->pump(notifier->context);
}

int qtfs_notifier_init(struct qtfs_notifier *notifier,
		       void (*event)(void *context, const struct qtfs_notice *notice),
		       void (*pump)(void *context), void *context)
{
	/* A client may know an object by several inodes. */
	notifier->group = fsnotify_alloc_group(&qtfs_notify_operations, FSNOTIFY_GROUP_DUPS);
	if (IS_ERR(notifier->group))
		return PTR_ERR(notifier->group);
	notifier->group->private = notifier;
	INIT_WORK(&notifier->work, qtfs_notifier_work);
	notifier->event = event;
	notifier->pump = pump;
	notifier->context = context;
	return 0;
}

/* All marks have been removed. Afterwards nothing is called any more. */
void qtfs_notifier_end(struct qtfs_notifier *notifier)
{
	/* Events may be on their way until the marks are freed. */
	fsnotify_wait_marks_destroyed();
	cancel_work_sync(&notifier->work);
	fsnotify_put_group(notifier->group);
}

void qtfs_notifier_pump(struct qtfs_notifier *notifier)
{
	queue_work(system_dfl_wq, &notifier->work);
}

static u32 qtfs_notify_mask(const struct inode *inode, u32 mask)
{
	mask = (mask & QTFS_NOTIFY_WANTED) | FS_UNMOUNT;
	return S_ISDIR(inode->i_mode) ? mask | FS_EVENT_ON_CHILD : mask;
}

struct qtfs_notify_mark *qtfs_notify_add(struct qtfs_notifier *notifier, struct inode *inode,
					 const struct inode *top, u64 watch, u32 mask)
{
	struct qtfs_notify_mark *mark = kzalloc_obj(*mark);
	int ret;

	if (!mark)
		return ERR_PTR(-ENOMEM);
	fsnotify_init_mark(&mark->mark, notifier->group);
	mark->mark.mask = qtfs_notify_mask(inode, mask);
	mark->watch = watch;
	mark->top = top->i_ino;
	mark->top_generation = top->i_generation;
	ret = fsnotify_add_inode_mark(&mark->mark, inode, 0);
	if (ret) {
		fsnotify_put_mark(&mark->mark);
		return ERR_PTR(ret);
	}
	return mark;
}

void qtfs_notify_change(struct qtfs_notify_mark *mark, u32 mask, bool add)
{
	mask &= QTFS_NOTIFY_WANTED;
	fsnotify_modify_mark_mask(&mark->mark, mask, add ? 0 : QTFS_NOTIFY_WANTED & ~mask);
}

void qtfs_notify_remove(struct qtfs_notifier *notifier, struct qtfs_notify_mark *mark)
{
	fsnotify_destroy_mark(&mark->mark, notifier->group);
	fsnotify_put_mark(&mark->mark);
}

/*
 * What the current system call wants to be told of, if it is one that watches
 * an inode; the VFS says nothing of that but that it asks for permission to read.
 */
u32 qtfs_notify_wanted(void)
{
	unsigned long args[6];
	struct pt_regs *regs;

	if (current->flags & (PF_KTHREAD | PF_USER_WORKER | PF_EXITING))
		return 0;
	regs = current_pt_regs();
	syscall_get_arguments(current, regs, args);
	if (in_compat_syscall()) {
#ifdef __NR_ia32_inotify_add_watch
		switch (syscall_get_nr(current, regs)) {
		case __NR_ia32_inotify_add_watch:
			return args[2] & QTFS_NOTIFY_WANTED;
		case __NR_ia32_fanotify_mark:
			return args[2] & QTFS_NOTIFY_WANTED;
		}
#endif
		return 0;
	}
	switch (syscall_get_nr(current, regs)) {
	case __NR_inotify_add_watch:
	case __NR_fanotify_mark:
		return args[2] & QTFS_NOTIFY_WANTED;
	}
	return 0;
}

/* What somebody on this machine wants to be told of an inode. */
u32 qtfs_notify_watched(const struct inode *inode)
{
	return READ_ONCE(inode->i_fsnotify_mask) & QTFS_NOTIFY_WANTED;
}

/* An entry of a directory has changed, or with no name the inode itself. */
void qtfs_notify_tell(struct inode *inode, u32 mask, const unsigned char *name, unsigned int len,
		      u32 cookie)
{
	struct qstr entry = QSTR_INIT(name, len);

	if (name)
		fsnotify(mask, inode, FSNOTIFY_EVENT_INODE, inode, &entry, NULL, cookie);
	else
		fsnotify(mask, inode, FSNOTIFY_EVENT_INODE, NULL, NULL, inode, 0);
}

/*
 * Something happened to what a name in @dir leads to. Those who watch @child are
 * told too.
 */
void qtfs_notify_tell_parent(struct inode *dir, struct inode *child, u32 mask,
			     const unsigned char *name, unsigned int len)
{
	struct qstr entry = QSTR_INIT(name, len);

	fsnotify(mask | FS_EVENT_ON_CHILD, child, FSNOTIFY_EVENT_INODE, dir, &entry, child, 0);
}

/* The object does not exist any more: nobody watches it any more either. */
void qtfs_notify_gone(struct inode *inode)
{
	__fsnotify_inode_delete(inode);
}
