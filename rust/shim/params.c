// SPDX-License-Identifier: GPL-2.0
/*
 * Module parameters that both modules have; included by each module's shim.c.
 */
#include <linux/moduleparam.h>
#include <linux/string_helpers.h>

#include "mount.h"

char qtfs_server_ip[64] = "127.0.0.1";
module_param_string(qtfs_server_ip, qtfs_server_ip, sizeof(qtfs_server_ip), 0444);
MODULE_PARM_DESC(qtfs_server_ip, "IPv4 or IPv6 address of the server on HOST");

unsigned short qtfs_server_port = 12345;

static int qtfs_port_set(const char *text, const struct kernel_param *param)
{
	u16 port;

	if (kstrtou16(text, 10, &port) || !port) {
		pr_err("qtfs_server_port=%s: not a TCP port, give a number from 1 to 65535\n", text);
		return -EINVAL;
	}
	return param_set_ushort(text, param);
}

static const struct kernel_param_ops qtfs_port_ops = {
	.set = qtfs_port_set,
	.get = param_get_ushort,
};

module_param_cb(qtfs_server_port, &qtfs_port_ops, &qtfs_server_port, 0444);
MODULE_PARM_DESC(qtfs_server_port, "TCP port of the server on HOST (12345)");

/* Index into the names. */
unsigned int qtfs_log_level = 1;

static const char *const qtfs_log_levels[] = { "ERROR", "WARN", "INFO", "DEBUG" };

static int qtfs_log_level_set(const char *text, const struct kernel_param *param)
{
	int level = sysfs_match_string(qtfs_log_levels, text);

	if (level < 0) {
		pr_err("qtfs_log_level=%s: no such level, give ERROR, WARN, INFO or DEBUG\n", text);
		return -EINVAL;
	}
	WRITE_ONCE(qtfs_log_level, level);
	return 0;
}

static int qtfs_log_level_get(char *buf, const struct kernel_param *param)
{
	return sysfs_emit(buf, "%s\n", qtfs_log_levels[READ_ONCE(qtfs_log_level)]);
}

static const struct kernel_param_ops qtfs_log_level_ops = {
	.set = qtfs_log_level_set,
	.get = qtfs_log_level_get,
};

module_param_cb(qtfs_log_level, &qtfs_log_level_ops, NULL, 0644);
MODULE_PARM_DESC(qtfs_log_level, "What is logged: ERROR, WARN (default), INFO or DEBUG");
