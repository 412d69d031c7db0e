/* SPDX-License-Identifier: GPL-2.0 */
/* Directories in sysfs with numbers of one mount. Read by bindgen through shim.h. */
#ifndef _QTFS_SYSFS_H
#define _QTFS_SYSFS_H

#include <linux/kobject.h>
#include <linux/sysfs.h>

/* @show: writes the file with a number to a page; called until qtfs_sysfs_remove(). */
struct qtfs_sysfs {
	struct kobject kobj;
	ssize_t (*show)(void *context, unsigned int number, char *page);
	void *context;
	struct attribute attributes[];
};

struct kobject *qtfs_sysfs_top(const char *name);
struct qtfs_sysfs *qtfs_sysfs_add(struct kobject *top, const char *name,
				  const char *const *files, unsigned int count,
				  ssize_t (*show)(void *context, unsigned int number, char *page),
				  void *context);
void qtfs_sysfs_remove(struct qtfs_sysfs *directory);

#endif /* _QTFS_SYSFS_H */
