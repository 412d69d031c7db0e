// SPDX-License-Identifier: GPL-2.0
/* What unix.h declares; included by shim.c. */
#include <linux/file.h>
#include <linux/net.h>
#include <net/af_unix.h>
#include <asm/syscall.h>
#include <asm/unistd.h>

#include "unix.h"

/*
 * The system call of the current task, or -1 if it is in none that can be
 * known: those of other architectures have other numbers.
 */
static int qtfs_current_syscall(unsigned long args[6])
{
	struct pt_regs *regs = current_pt_regs();

	if (current->flags & (PF_KTHREAD | PF_USER_WORKER | PF_EXITING) || in_compat_syscall())
		return -1;
	syscall_get_arguments(current, regs, args);
	return syscall_get_nr(current, regs);
}

/* The socket that the current task's system call, if it is @nr, is about, held; NULL if there is none. */
static struct socket *qtfs_socket_of_call(int nr)
{
	unsigned long args[6];
	int err;

	if (qtfs_current_syscall(args) != nr)
		return NULL;
	return sockfd_lookup((int)args[0], &err);
}

/* The unix socket that the current task binds, held; NULL if it binds none. */
struct sock *qtfs_binding_socket(void)
{
	struct socket *sock = qtfs_socket_of_call(__NR_bind);
	struct sock *sk = NULL;

	if (!sock)
		return NULL;
	if (sock->sk && sock->sk->sk_family == AF_UNIX) {
		sk = sock->sk;
		sock_hold(sk);
	}
	sockfd_put(sock);
	return sk;
}

void qtfs_socket_put(struct sock *sk)
{
	sock_put(sk);
}

/* SOCK_*. */
unsigned int qtfs_socket_type(const struct sock *sk)
{
	return sk->sk_type;
}

/*
 * Whether the current task asks for the permission to write to a socket because
 * it connects to it, or sends to it without a connection.
 */
bool qtfs_is_connecting(void)
{
	unsigned long args[6];

	switch (qtfs_current_syscall(args)) {
	case -1:
	case __NR_connect:
	case __NR_sendto:
	case __NR_sendmsg:
	case __NR_sendmmsg:
	case __NR_io_uring_enter:
		return true;
	default:
		return false;
	}
}

/* Whether the current task, which is connecting, waits until there is room for it: see connect(2), EAGAIN. */
bool qtfs_waits_for_connection(void)
{
	struct socket *sock = qtfs_socket_of_call(__NR_connect);
	bool waits;

	if (!sock)
		return true;
	waits = !(sock->file->f_flags & O_NONBLOCK);
	sockfd_put(sock);
	return waits;
}

/* SOCK_* of the socket with which the current task connects or sends; 0 if that can't be known. */
unsigned int qtfs_connecting_type(void)
{
	unsigned long args[6];
	struct socket *sock;
	unsigned int type;
	int err;

	switch (qtfs_current_syscall(args)) {
	case __NR_connect:
	case __NR_sendto:
	case __NR_sendmsg:
	case __NR_sendmmsg:
		break;
	default:
		return 0;
	}
	sock = sockfd_lookup((int)args[0], &err);
	if (!sock)
		return 0;
	type = sock->type;
	sockfd_put(sock);
	return type;
}

static int qtfs_bound_told(struct wait_queue_entry *wait, unsigned int mode, int sync, void *key)
{
	struct qtfs_bound *bound = container_of(wait, struct qtfs_bound, wait);

	if (qtfs_bound_is_closed(bound))
		bound->closed(bound->context);
	return 0;
}

/*
 * Has @closed called when the socket @sk, whose reference it takes over, is
 * closed, in a context that may not sleep. Others wait in this queue for room
 * in the socket's queue, so it is called for more than that.
 */
void qtfs_bound_start(struct qtfs_bound *bound, struct sock *sk, void (*closed)(void *context),
		      void *context)
{
	bound->sk = sk;
	bound->closed = closed;
	bound->context = context;
	init_waitqueue_func_entry(&bound->wait, qtfs_bound_told);
	add_wait_queue(&unix_sk(sk)->peer_wait, &bound->wait);
}

bool qtfs_bound_is_closed(const struct qtfs_bound *bound)
{
	return sock_flag(bound->sk, SOCK_DEAD);
}

void qtfs_bound_end(struct qtfs_bound *bound)
{
	remove_wait_queue(&unix_sk(bound->sk)->peer_wait, &bound->wait);
	sock_put(bound->sk);
}

static void qtfs_set_buffer(struct socket *sock, int buffer)
{
	lock_sock(sock->sk);
	sock->sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
	WRITE_ONCE(sock->sk->sk_sndbuf, buffer);
	release_sock(sock->sk);
}

/*
 * Two ends of a connection that takes @buffer bytes of messages in each
 * direction. Nobody waits for them.
 */
int qtfs_channel_pair(struct file **ours, struct file **theirs, int buffer)
{
	struct socket *a, *b;
	int ret;

	ret = sock_create(AF_UNIX, SOCK_SEQPACKET, 0, &a);
	if (ret)
		return ret;
	ret = sock_create(AF_UNIX, SOCK_SEQPACKET, 0, &b);
	if (ret) {
		sock_release(a);
		return ret;
	}
	ret = a->ops->socketpair(a, b);
	if (ret) {
		sock_release(a);
		sock_release(b);
		return ret;
	}
	qtfs_set_buffer(a, buffer);
	qtfs_set_buffer(b, buffer);
	/* Who fails to get a file releases the socket. */
	*ours = sock_alloc_file(a, O_NONBLOCK, NULL);
	if (IS_ERR(*ours)) {
		sock_release(b);
		return PTR_ERR(*ours);
	}
	*theirs = sock_alloc_file(b, O_NONBLOCK, NULL);
	if (IS_ERR(*theirs)) {
		fput(*ours);
		return PTR_ERR(*theirs);
	}
	return 0;
}

bool qtfs_is_socket(struct file *file)
{
	return S_ISSOCK(file_inode(file)->i_mode);
}
