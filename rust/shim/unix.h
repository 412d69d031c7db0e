/* SPDX-License-Identifier: GPL-2.0 */
/* Unix sockets of programs of this machine. Read by bindgen through shim.h. */
#ifndef _QTFS_UNIX_H
#define _QTFS_UNIX_H

#include <linux/fs.h>
#include <linux/wait.h>
#include <net/sock.h>

/* A socket that is bound, or is just being, and who is told when it is closed. */
struct qtfs_bound {
	struct wait_queue_entry wait;
	struct sock *sk;
	void (*closed)(void *context);
	void *context;
};

struct sock *qtfs_binding_socket(void);
void qtfs_socket_put(struct sock *sk);
unsigned int qtfs_socket_type(const struct sock *sk);
bool qtfs_is_connecting(void);
bool qtfs_waits_for_connection(void);
unsigned int qtfs_connecting_type(void);
void qtfs_bound_start(struct qtfs_bound *bound, struct sock *sk, void (*closed)(void *context),
		      void *context);
bool qtfs_bound_is_closed(const struct qtfs_bound *bound);
void qtfs_bound_end(struct qtfs_bound *bound);
int qtfs_channel_pair(struct file **ours, struct file **theirs, int buffer);
bool qtfs_is_socket(struct file *file);

#endif
