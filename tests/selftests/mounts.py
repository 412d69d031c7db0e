# SPDX-License-Identifier: GPL-2.0
"""mount and umount that work: options, many at once, busy, lazy, forced, and nothing left behind."""

import ctypes
import mmap
import os
import re
from errno import EBUSY, EINVAL, EIO, EROFS

from qtest import (ROOT, case, counters, eq, eventually, fails, files, filesystems, host, lab, missing, run, spawn, syscalls,
                   took, true)

# The cases mount what they need.
MANUAL = True
TOP = "/mnt/mounts"
EXPORT = "/data/export/mounts"


def set_up(fs):
    """Server and module, but nothing mounted."""
    if fs.name != "qtfs":
        return
    host.server.start(fresh=True)
    filesystems.load_module(fresh=True)
    host.files.fresh_directory(EXPORT)
    host.files.write(f"{EXPORT}/f", b"data")
    os.makedirs(TOP, exist_ok=True)


def tear_down(fs):
    """Nothing stays mounted."""
    if fs.name == "qtfs":
        while mounted():
            filesystems.umount(TOP, "-f", "-l")


def mounted(target=TOP):
    """Whether something is mounted there; asks the kernel's table, not the file system."""
    return f" {target} " in files.read("/proc/self/mountinfo").decode()


@case("mount -t qtfs DIR MOUNTPOINT, as in the guide, shows the host's directory", who=[ROOT], needs="qtfs")
def simple(t):
    filesystems.mount(EXPORT, TOP)
    eq(files.read(f"{TOP}/f"), b"data")
    filesystems.umount(TOP)
    missing(f"{TOP}/f")


@case("mounts shows the options that hold: server, port, connections, soft or hard", who=[ROOT], needs="qtfs")
def shown(t):
    def options():
        for line in files.read("/proc/self/mounts").decode().splitlines():
            source, target, kind, shown_options = line.split(" ")[:4]
            if target == TOP:
                eq(kind, "qtfs")
                true(EXPORT in source, source)
                return shown_options.split(",")
        raise AssertionError(f"{TOP} is not in /proc/self/mounts")

    filesystems.mount(EXPORT, TOP)
    found = options()
    for wanted in ("rw", "server=10.0.0.1", "port=12345", "hard"):
        true(wanted in found, f"{wanted} in {found}")
    filesystems.umount(TOP)
    filesystems.mount(EXPORT, TOP, "ro", "nosuid", "nodev", "noexec", "soft", "timeo=50", "nconnect=4", "server=10.0.0.1", "port=12345")
    found = options()
    for wanted in ("ro", "nosuid", "nodev", "noexec", "soft", "timeo=50", "nconnect=4"):
        true(wanted in found, f"{wanted} in {found}")
    fails(EROFS, files.write, f"{TOP}/new")
    filesystems.umount(TOP)


@case("IPv6 works as well", who=[ROOT], needs="qtfs")
def ipv6(t):
    host.server.stop_engine()
    host.server.unload()
    try:
        host.server.load("qtfs_server_ip=::", "qtfs_server_port=12345")
        host.server.start_engine()
        filesystems.mount(EXPORT, TOP, "server=fd00:7174::1")
        eq(files.read(f"{TOP}/f"), b"data")
        filesystems.umount(TOP)
        filesystems.mount(EXPORT, TOP)
        eq(files.read(f"{TOP}/f"), b"data")
        filesystems.umount(TOP)
    finally:
        host.server.stop_engine()
        host.server.unload()
        host.server.start()


@case("remount changes ro and rw", who=[ROOT], needs="qtfs")
def remount(t):
    filesystems.mount(EXPORT, TOP)
    run(["mount", "-o", "remount,ro", TOP])
    fails(EROFS, files.write, f"{TOP}/new")
    run(["mount", "-o", "remount,rw", TOP])
    files.write(f"{TOP}/new")
    os.unlink(f"{TOP}/new")
    filesystems.umount(TOP)


@case("remount refuses to change the server, the connections or how requests wait", who=[ROOT], needs="qtfs")
def remount_options(t):
    filesystems.mount(EXPORT, TOP)
    for option in ("nconnect=7", "port=12346", "server=10.0.0.77", "soft", "timeo=50", "proc", "local_proc=/else"):
        done = run(["mount", "-o", f"remount,{option}", TOP], check=False)
        name = option.split("=", maxsplit=1)[0]
        true(done.status != 0 and "remount" in done.complaint and name in done.complaint, f"{option}: {done}")
    run(["mount", "-o", "remount,port=12345,hard", TOP])
    filesystems.umount(TOP)


@case("mount points may be nested, bound and moved", who=[ROOT], needs="qtfs")
def nested(t):
    host.os.makedirs(f"{EXPORT}/sub/inner", exist_ok=True)
    filesystems.mount(EXPORT, TOP)
    filesystems.mount(f"{EXPORT}/sub", f"{TOP}/sub")
    eq(os.listdir(f"{TOP}/sub"), ["inner"])
    run(["mount", "--bind", f"{TOP}/sub", f"{TOP}/sub/inner"])
    eq(os.listdir(f"{TOP}/sub/inner"), ["inner"])
    eq(filesystems.umount(TOP, check=False).status != 0, True, "busy while something is mounted below")
    run(["umount", "-R", TOP])
    eq(mounted(), False)


@case("umount is EBUSY while a file is open or a directory is current", who=[ROOT], needs="qtfs")
def busy(t):
    filesystems.mount(EXPORT, TOP)
    fd = os.open(f"{TOP}/f", os.O_RDONLY)
    fails(EBUSY, syscalls.umount, TOP)
    os.close(fd)
    os.chdir(TOP)
    fails(EBUSY, syscalls.umount, TOP)
    os.chdir("/")
    syscalls.umount(TOP)


@case("umount writes what is dirty", who=[ROOT], needs="qtfs")
def umount_flushes(t):
    filesystems.mount(EXPORT, TOP)
    files.write(f"{TOP}/dirty", files.pattern(2 << 20))
    fd = os.open(f"{TOP}/dirty", os.O_RDWR)
    memory = mmap.mmap(fd, 4096)
    memory[0:6] = b"mapped"
    memory.close()
    os.close(fd)
    filesystems.umount(TOP)
    eq(host.files.read(f"{EXPORT}/dirty", 0, 6), b"mapped")
    eq(host.os.stat(f"{EXPORT}/dirty").st_size, 2 << 20)
    host.os.unlink(f"{EXPORT}/dirty")


@case("a lazy umount lets open files go on, and ends the session with the last", who=[ROOT], needs="qtfs")
def lazy(t):
    filesystems.mount(EXPORT, TOP)
    fd = os.open(f"{TOP}/lazy", os.O_CREAT | os.O_RDWR)
    syscalls.umount(TOP, syscalls.MNT_DETACH)
    eq(mounted(), False)
    os.write(fd, b"still")
    os.fsync(fd)
    eq(host.files.read(f"{EXPORT}/lazy"), b"still")
    eq(connections() > 0, True, "connected")
    os.close(fd)
    eventually(lambda: connections() == 0, 10, "the connections are closed")


def connections():
    """Connections to the server's port."""
    found = files.read("/proc/net/tcp").decode() + files.read("/proc/net/tcp6").decode()
    return len(re.findall(r":3039 01 ", found))


@case("umount closes the connections and leaves no threads", who=[ROOT], needs="qtfs")
def umount_cleans(t):
    before = threads()
    filesystems.mount(EXPORT, TOP, "nconnect=4")
    eventually(lambda: connections() == 4, 20, "four connections")
    os.listdir(TOP)
    filesystems.umount(TOP)
    eventually(lambda: connections() == 0, 10, "no connection is left")
    eventually(lambda: threads() <= before, 10, "no thread is left")


def threads():
    """Kernel threads that belong to qtfs."""
    count = 0
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                count += files.read(f"/proc/{pid}/comm").startswith(b"qtfs")
            except OSError:
                pass
    return count


@case("50 mounts and umounts leave nothing behind", who=[ROOT], needs="qtfs", limit=180)
def many_times(t):
    filesystems.mount(EXPORT, TOP)
    filesystems.umount(TOP)
    before = threads()
    for number in range(50):
        syscalls.mount(EXPORT, TOP, "qtfs")
        if number % 10 == 0:
            eq(files.read(f"{TOP}/f"), b"data")
        syscalls.umount(TOP)
    eventually(lambda: threads() <= before and connections() == 0, 10, "nothing is left")


@case("20 mounts at the same time, of the same and of different directories", who=[ROOT], needs="qtfs", limit=180)
def many_at_once(t):
    targets = [f"/mnt/many/{number}" for number in range(20)]
    for number, target in enumerate(targets):
        os.makedirs(target, exist_ok=True)
        host.os.makedirs(f"{EXPORT}/many{number % 3}", exist_ok=True)
        filesystems.mount(f"{EXPORT}/many{number % 3}", target)
    for number, target in enumerate(targets):
        files.write(f"{target}/f{number}")
    eq(len(os.listdir(targets[0])), 7)
    devices = {os.stat(target).st_dev for target in targets}
    eq(len(devices), 20, "each mount has a device number of its own")
    for target in targets:
        filesystems.umount(target)


@case("umount -f works while the host is gone, also with processes that wait", who=[ROOT], needs="qtfs", limit=120)
def force(t):
    filesystems.mount(EXPORT, TOP)
    fd = os.open(f"{TOP}/f", os.O_RDONLY)
    lab.link("down")
    try:
        waiting = spawn(os.stat, f"{TOP}/f")
        true(waiting.sleeps(5), "a stat waits")
        with took() as time_taken:
            done = filesystems.umount(TOP, "-f", check=False, patience=60)
        t.note(f"umount -f: {done.status} {done.complaint} after {time_taken.seconds:.1f} s")
        true(waiting.finished(10), "the stat came back")
        fails(EIO, waiting.result, 1)
        os.close(fd)
        if mounted():
            filesystems.umount(TOP, "-f", patience=60)
        eq(mounted(), False)
        eventually(lambda: threads() == 0, 20, "no thread is left")
    finally:
        lab.link("up")
    filesystems.mount(EXPORT, TOP)
    eq(files.read(f"{TOP}/f"), b"data")
    filesystems.umount(TOP)


@case("umount(2) without force works while the host is gone, when nothing is dirty", who=[ROOT], needs="qtfs", limit=120)
def plain_umount_without_host(t):
    filesystems.mount(EXPORT, TOP)
    files.read(f"{TOP}/f")
    lab.link("down")
    try:
        # umount(8) would look at the directory first.
        child = spawn(syscalls.umount, TOP)
        child.result(20)
        eq(mounted(), False)
    finally:
        lab.link("up")
    eventually(lambda: threads() == 0, 20, "no thread is left")


@case("mountstats has a section per mount with header, session and one line per operation", who=[ROOT], needs="qtfs")
def statistics(t):
    filesystems.mount(EXPORT, TOP)
    os.listdir(TOP)
    kind, lines = counters.section(TOP, files.read("/proc/self/mountstats").decode())
    eq(kind, "qtfs")
    true(any("session:" in line for line in lines), "a session line")
    found = counters.read(TOP)
    for operation in ("HELLO", "ATTACH", "LOOKUP", "GETATTR", "READDIR", "OPEN", "READ", "WRITE", "RELEASE", "RENAME"):
        true(operation in found.operations, f"{operation} is counted")
    true({"requests", "waits", "retransmits", "bytes_sent", "bytes_received", "errors"} <= set(found.operations["READ"]), "columns")
    eq(found.count("ATTACH", "requests"), 1)
    filesystems.umount(TOP)


@case("fsopen, fsconfig, fsmount: the new mount API, step by step", who=[ROOT], needs="qtfs")
def new_api(t):
    libc = syscalls.libc
    context = libc.syscall(430, b"qtfs", 1)
    true(context >= 0, "fsopen")
    for key, value in ((b"source", EXPORT.encode()), (b"port", b"12345")):
        eq(libc.syscall(431, context, 1, key, value, 0), 0, "fsconfig")
    true(libc.syscall(431, context, 1, b"port", b"99999", 0) < 0, "a wrong value is refused")
    eq(ctypes.get_errno(), EINVAL)
    message = os.read(context, 1000).decode()
    true(message.startswith("e ") and "99999" in message, message)
    eq(libc.syscall(431, context, 6, None, None, 0), 0, "FSCONFIG_CMD_CREATE")
    mount_fd = libc.syscall(432, context, 1, 0)
    true(mount_fd >= 0, "fsmount")
    fd = os.open("f", os.O_RDONLY, dir_fd=mount_fd)
    eq(os.read(fd, 10), b"data")
    os.close(fd)
    os.close(mount_fd)
    os.close(context)
    eventually(lambda: connections() == 0, 10, "closing the descriptor unmounts")
