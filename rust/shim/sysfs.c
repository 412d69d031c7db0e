// SPDX-License-Identifier: GPL-2.0
/* What sysfs.h declares. Included by shim.c. */
#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "sysfs.h"

static ssize_t qtfs_sysfs_show(struct kobject *kobj, struct attribute *attribute, char *page)
{
	struct qtfs_sysfs *directory = container_of(kobj, struct qtfs_sysfs, kobj);

	return directory->show(directory->context, attribute - directory->attributes, page);
}

static void qtfs_sysfs_release(struct kobject *kobj)
{
	kfree(container_of(kobj, struct qtfs_sysfs, kobj));
}

static const struct sysfs_ops qtfs_sysfs_ops = {
	.show = qtfs_sysfs_show,
};

static const struct kobj_type qtfs_sysfs_type = {
	.release = qtfs_sysfs_release,
	.sysfs_ops = &qtfs_sysfs_ops,
};

/* The directory of a file system in /sys/fs; ended by kobject_put(). */
struct kobject *qtfs_sysfs_top(const char *name)
{
	return kobject_create_and_add(name, fs_kobj);
}

/* A directory with @count files, whose names stay valid; NULL without memory. */
struct qtfs_sysfs *qtfs_sysfs_add(struct kobject *top, const char *name,
				  const char *const *files, unsigned int count,
				  ssize_t (*show)(void *context, unsigned int number, char *page),
				  void *context)
{
	struct qtfs_sysfs *directory;

	directory = kzalloc(struct_size(directory, attributes, count), GFP_KERNEL);
	if (!directory)
		return NULL;
	directory->show = show;
	directory->context = context;
	if (kobject_init_and_add(&directory->kobj, &qtfs_sysfs_type, top, "%s", name))
		goto fail;
	for (unsigned int i = 0; i < count; i++) {
		struct attribute *attribute = &directory->attributes[i];

		sysfs_attr_init(attribute);
		attribute->name = files[i];
		attribute->mode = 0444;
		if (sysfs_create_file(&directory->kobj, attribute))
			goto fail;
	}
	return directory;

fail:
	kobject_put(&directory->kobj);
	return NULL;
}

/* Returns when nobody reads the files any more. */
void qtfs_sysfs_remove(struct qtfs_sysfs *directory)
{
	kobject_del(&directory->kobj);
	kobject_put(&directory->kobj);
}
