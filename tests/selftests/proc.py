# SPDX-License-Identifier: GPL-2.0
"""The host's /proc and /sys: whose processes are seen, what `self` means, links, reads and writes of one piece."""

import os
import re
import threading
from errno import EACCES, EBUSY, EFBIG, EINVAL, ENOENT, EOPNOTSUPP, EREMOTE, EROFS, ESRCH

from qtest import ROOT, case, eq, eventually, fails, files, filesystems, host, kernelfs, run, server, spawn, true, within
from qtest.kernelfs import EXPORTS, LOCAL, PROC, SYS, Waits, mount_both

# The cases mount what they need.
MANUAL = True
EXPORT = "/data/export/proc"
tear_down = kernelfs.tear_down


def set_up(fs):
    """As for all that test this, and a directory that is on neither."""
    kernelfs.set_up(fs)
    if fs.name == "qtfs":
        host.files.fresh_directory(EXPORT)


def options(target):
    """The options of a mount in /proc/mounts."""
    for line in files.read("/proc/self/mounts").decode().splitlines():
        if line.split(" ")[1] == target:
            return line.split(" ")[3].split(",")
    raise AssertionError(f"{target} is not mounted")


@case("the options proc, sys and local_proc are checked and shown", who=[ROOT], needs="qtfs")
def mount_options(t):
    mount_both()
    shown = options(PROC)
    true("proc" in shown and f"local_proc={LOCAL}" in shown, f"proc in {shown}")
    true("sys" in options(SYS), "sys is shown")
    top = "/mnt/proc-options"
    os.makedirs(top, exist_ok=True)
    filesystems.mount("/proc", top, "local_proc=/else where")
    shown = options(top)
    true("proc" in shown and "local_proc=/else\\040where" in shown, f"the kind of directory chooses: {shown}")
    filesystems.umount(top)
    for source, wanted, words in ((EXPORT, "proc", "is no procfs"), (EXPORT, "sys", "is no sysfs"), ("/sys", "proc", "is no procfs"),
                                  ("/proc", "sys", "is no sysfs"), ("/proc", "local_proc=x", "absolute path"),
                                  ("/proc", "proc,sys", "not both"), ("/proc", "proc=1", "takes no value")):
        done = filesystems.mount(source, top, wanted, check=False)
        true(done.status != 0 and words in done.complaint, f"{source} -o {wanted} is refused: {done}")


@case("pids are the host's", who=[ROOT], needs="qtfs")
def pids(t):
    mount_both()
    engine = host.server.engines()[0]
    eq(files.read(f"{PROC}/{engine}/comm"), b"engine\n")
    there = {name for name in host.os.listdir("/proc") if name.isdigit()}
    here = {name for name in os.listdir(PROC) if name.isdigit()}
    true(len(here & there) > 0.8 * len(there), f"{len(here & there)} of {len(there)} pids")
    eq(files.read(f"{PROC}/version"), host.files.read("/proc/version"))


def own_links(prefix=""):
    """What this process is, as the links below a mount of the host's /proc have it."""
    proc, local = prefix + PROC, prefix + LOCAL
    eq(os.readlink(f"{proc}/self"), f"{LOCAL}/self")
    eq(os.readlink(f"{proc}/thread-self"), f"{LOCAL}/thread-self")
    own, thread = os.readlink(f"{local}/self"), os.readlink(f"{local}/thread-self")
    eq(os.readlink(f"{proc}/{own}"), f"{LOCAL}/self")
    tid = thread.rsplit("/", 1)[1]
    if tid != own:
        eq(os.readlink(f"{proc}/{tid}"), f"{LOCAL}/thread-self")
    for name in ("self", own):
        eq(files.read(f"{proc}/{name}/stat").split(b" ")[0].decode(), own)
        eq(os.readlink(f"{proc}/{name}/exe"), os.readlink(f"{local}/self/exe"))
    for name in ("thread-self", tid):
        eq(files.read(f"{proc}/{name}/stat").split(b" ")[0].decode(), tid)
    return own, tid


@case("self, thread-self and the own numbers are the caller, in every thread and after fork", who=[ROOT], needs="qtfs")
def own(t):
    mount_both()
    found = own_links()
    eq(found[0], str(os.getpid()))
    seen, errors = [], []

    def look():
        try:
            for _ in range(20):
                seen.append(own_links())
        except BaseException as e:  # pylint: disable=broad-exception-caught
            errors.append(e)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    eq(len(set(seen)), 4, "threads")
    for _ in range(10):
        child = spawn(own_links)
        eq(child.result(20)[0], str(child.pid))
    eq(own_links(), found)


@case("the own number leads others to the host's process, before and after", who=[ROOT], needs="qtfs")
def not_cached(t):
    mount_both()
    for _ in range(3):
        eq(files.read(f"{PROC}/1/comm"), host.files.read("/proc/1/comm"))
        # exec keeps the number 1, which the shell has in its namespace.
        for command, wanted in (("readlink", f"{LOCAL}/self"), ("stat -c %F", "symbolic link")):
            done = run(["unshare", "-pf", "--mount-proc=" + LOCAL, "sh", "-c", f"exec {command} {PROC}/1"])
            eq(done.text.strip(), wanted)
        done = run(["unshare", "-pf", "--mount-proc=" + LOCAL, "sh", "-c", f"exec cat {PROC}/1/comm {PROC}/self/comm"])
        eq(done.text.split(), ["cat", "cat"])
        true(os.path.isdir(f"{PROC}/1") and not os.path.islink(f"{PROC}/1"), "a directory for us")


@case("in a chroot the links lead to its own /local_proc", who=[ROOT], needs="qtfs")
def changed_root(t):
    mount_both()
    top = "/mnt/proc-root"
    inside = [f"{top}{path}" for path in ("/proc", LOCAL, "/usr", "/bin", "/lib", "/lib64")]
    for path in inside:
        os.makedirs(path, exist_ok=True)
    script = f"mount --rbind {PROC} {top}/proc; mount -t proc proc {top}{LOCAL}; " + "".join(
        f"mount --bind {path} {top}{path}; " for path in ("/usr", "/bin", "/lib", "/lib64"))
    look = "echo $$; read pid rest < /proc/self/stat; echo $pid; exec cat /proc/self/comm"
    done = run(["unshare", "-m", "sh", "-c", f"{script} exec chroot {top} sh -c '{look}'"])
    pid, same, comm = done.text.split()
    eq((pid, comm), (same, "cat"))
    # Without it there is nothing that they could lead to.
    done = run(["unshare", "-m", "sh", "-c", f"{script} umount {top}{LOCAL}; exec chroot {top} cat /proc/self/comm"], check=False)
    true("No such file" in done.complaint, done.complaint)


@case("the text of a link of /proc/PID is the host's, and following it is EREMOTE", who=[ROOT], needs="qtfs")
def magic_links(t):
    mount_both()
    engine = host.server.engines()[0]
    for name in ("exe", "cwd", "root", "fd/0", "fd/1"):
        eq(os.readlink(f"{PROC}/{engine}/{name}"), host.os.readlink(f"/proc/{engine}/{name}"), name)
        eq(os.lstat(f"{PROC}/{engine}/{name}").st_mode, host.os.lstat(f"/proc/{engine}/{name}").st_mode, name)
        fails(EREMOTE, os.stat, f"{PROC}/{engine}/{name}")
        fails(EREMOTE, os.open, f"{PROC}/{engine}/{name}", os.O_RDONLY)
    fails(EREMOTE, os.listdir, f"{PROC}/{engine}/root/etc")
    fails(EREMOTE, os.stat, f"{PROC}/{engine}/cwd/.")
    ranges = host.os.listdir(f"/proc/{engine}/map_files")[:3]
    for name in ranges:
        eq(os.readlink(f"{PROC}/{engine}/map_files/{name}"), host.os.readlink(f"/proc/{engine}/map_files/{name}"))
        fails(EREMOTE, os.stat, f"{PROC}/{engine}/map_files/{name}")
    # Links with a text that means what it says are followed.
    eq(os.readlink(f"{PROC}/mounts"), "self/mounts")
    eq(files.read(f"{PROC}/mounts").split(b"\n")[0], files.read("/proc/self/mounts").split(b"\n")[0])


@case("a link to a namespace leads to something with the namespace's number", who=[ROOT], needs="qtfs")
def namespaces(t):
    mount_both()
    devices = set()
    for name in host.os.listdir("/proc/1/ns"):
        text = host.os.readlink(f"/proc/1/ns/{name}")
        eq(os.readlink(f"{PROC}/1/ns/{name}"), text)
        found = os.stat(f"{PROC}/1/ns/{name}")
        eq(found.st_ino, int(re.search(r"\d+", text)[0]))
        eq(found.st_mode, 0o100444)
        devices.add(found.st_dev)
        fails(EACCES, os.open, f"{PROC}/1/ns/{name}", os.O_RDONLY)
    eq(len(devices), 1, "devices")
    true(os.stat(PROC).st_dev not in devices, "they are not on procfs")
    fails(ENOENT, os.stat, f"{PROC}/1/ns/else:[1]")
    fails(EOPNOTSUPP, os.utime, f"{PROC}/1/ns/net")


@case("open, read and close of a file whose directory is known: 1 round trip, 2 at most", who=[ROOT], needs="qtfs")
def one_round_trip(t):
    mount_both()
    for name in ("loadavg", "meminfo", "1/stat", "1/cmdline", "sys/kernel/ostype"):
        files.read(f"{PROC}/{name}")
        for _ in range(3):
            with Waits() as waits:
                done = run(["cat", f"{PROC}/{name}"])
            t.note(f"cat {name}: {waits.count} round trips: {waits.spent}")
            true(waits.count <= 2, f"{name}: {waits.spent}")
        with Waits() as waits:
            with open(f"{PROC}/{name}", "rb", buffering=0) as file:
                data = file.read(65536)
                eq(file.read(65536), b"")
        t.note(f"read {name}: {waits.count}: {waits.spent}")
        true(waits.count <= 2, f"{name}: {waits.spent}")
        if name not in ("loadavg", "meminfo", "1/stat"):
            eq(data, host.files.read(f"/proc/{name}"))
            eq(data.decode().removesuffix("\n"), done.text)


@case("what came with the opening is used at once or not at all", who=[ROOT], needs="qtfs")
def first_bytes(t):
    mount_both()
    name = "/proc/sys/kernel/domainname"
    host.files.write(name, b"one")
    fd = os.open(f"{PROC}/sys/kernel/domainname", os.O_RDONLY)
    host.files.write(name, b"two")
    eq(os.read(fd, 100), b"two\n")
    eq(os.read(fd, 100), b"")
    eq(os.pread(fd, 100, 0), b"two\n")
    host.files.write(name, b"three")
    eq(os.pread(fd, 100, 0), b"three\n")
    eq(os.pread(fd, 2, 2), b"re")
    os.close(fd)
    # Another thread may be faster than the one that opened the file.
    fd = os.open(f"{PROC}/sys/kernel/domainname", os.O_RDONLY)
    child = spawn(os.read, fd, 100)
    eq(child.result(10), b"three\n")
    os.close(fd)
    # In small pieces, as a shell reads.
    fd = os.open(f"{PROC}/version", os.O_RDONLY)
    text = b""
    while byte := os.read(fd, 7):
        text += byte
    os.close(fd)
    eq(text, host.files.read("/proc/version"))
    # Long ones, which HOST gives in pieces.
    sleeps = host.background.start("time", "sleep", 600)
    true(host.background.sleeps(sleeps), "it changes no more")
    there = host.files.read(f"/proc/{sleeps}/maps")
    true(len(there) > 4096, "a long file")
    eq(files.read(f"{PROC}/{sleeps}/maps"), there)
    host.background.stop(sleeps)
    eq(os.stat(f"{PROC}/version").st_size, 0)


@case("a write is one write on the host, with its errno", who=[ROOT], needs="qtfs")
def writes(t):
    mount_both()
    name = f"{PROC}/sys/kernel/domainname"
    with Waits() as waits:
        files.write(name, b"written")
    eq(waits.spent.count("WRITE"), 1)
    eq(host.files.read("/proc/sys/kernel/domainname"), b"written\n")
    swappiness = f"{PROC}/sys/vm/swappiness"
    old = files.read(swappiness)
    run(["sh", "-c", f"echo 17 > {swappiness}"])
    eq(host.files.read("/proc/sys/vm/swappiness"), b"17\n")
    fails(EINVAL, files.write, swappiness, b"100000")
    fails(EINVAL, files.write, swappiness, b"no number")
    files.write(swappiness, old)
    fails(ENOENT, files.write, f"{PROC}/sys/nothing", b"1")
    fails(EFBIG, os.write, os.open(swappiness, os.O_WRONLY), bytes(2 << 20))
    # sysfs lets nobody open for reading what nobody can read.
    name = f"{SYS}/bus/platform/drivers_probe"
    eq(os.stat(name).st_mode & 0o777, 0o200)
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT):
        os.close(os.open(name, flags))


@case("a process that ends is ENOENT or ESRCH", who=[ROOT], needs="qtfs")
def vanishing(t):
    mount_both()
    job = host.background.start("time", "sleep", 600)
    path = f"{PROC}/{job}"
    eq(files.read(f"{path}/stat").split(b" ")[0], str(job).encode())
    directory = os.open(path, os.O_RDONLY)
    stat = os.open(f"{path}/stat", os.O_RDONLY)
    os.listdir(f"{path}/task")
    host.background.stop(job)
    fails(ESRCH, os.read, stat, 4096)
    for action, *arguments in ((files.read, f"{path}/stat"), (os.listdir, path), (os.stat, path), (os.readlink, f"{path}/exe")):
        fails(ENOENT, action, *arguments)
    try:
        os.stat("stat", dir_fd=directory)
        raise AssertionError("it is gone")
    except OSError as e:
        true(e.errno in (ENOENT, ESRCH), e)
    os.close(stat)
    os.close(directory)


@case("ps, free, uptime and lsns show the host where its /proc is /proc", who=[ROOT], needs="qtfs", limit=120)
def tools(t):
    mount_both()

    def there(command):
        done = run(["unshare", "-m", "sh", "-c", f"mount --rbind {PROC} /proc && {command}"])
        return done.text

    engine = host.server.engines()[0]
    lines = there("ps -e -o pid=,comm=").splitlines()
    true(any(line.split() == [str(engine), "engine"] for line in lines), lines)
    with Waits() as waits:
        lines = there("ps -ef").splitlines()
    t.note(f"ps -ef: {waits.count} round trips for {len(lines)} processes: {waits.spent}")
    total = [line.split()[1] for line in there("free -k").splitlines() if line.startswith("Mem")]
    eq(total, [line.split()[1] for line in host.run(["free", "-k"]).text.splitlines() if line.startswith("Mem")])
    within(abs(float(there("cat /proc/uptime").split()[0]) - float(host.files.read("/proc/uptime").split()[0])), 0, 30)
    true("up" in there("uptime"), "uptime")
    for kind in ("net", "mnt"):
        wanted = {line.split()[0] for line in host.run(["lsns", "-n", "-t", kind]).text.splitlines()}
        found = {line.split()[0] for line in there(f"lsns -n -t {kind}").splitlines()}
        eq(sorted(found), sorted(wanted), f"lsns -t {kind}")


@case("the life of a cgroup: made, a pid of the host moved in, limited, killed, removed", who=[ROOT], needs="qtfs")
def cgroup(t):
    mount_both()
    top = f"{SYS}/fs/cgroup/qtfs-test"
    there = "/sys/fs/cgroup/qtfs-test"
    true("memory" in files.read(f"{SYS}/fs/cgroup/cgroup.controllers").decode(), "there is a memory controller")
    files.write(f"{SYS}/fs/cgroup/cgroup.subtree_control", b"+memory")
    os.mkdir(top)
    fails(17, os.mkdir, top)
    job = host.background.start("time", "sleep", 600)
    try:
        files.write(f"{top}/cgroup.procs", str(job).encode())
        eq(files.read(f"{top}/cgroup.procs"), b"%d\n" % job)
        eq(files.read(f"{PROC}/{job}/cgroup"), b"0::/qtfs-test\n")
        files.write(f"{top}/memory.max", b"64M")
        eq(host.files.read(f"{there}/memory.max"), b"67108864\n")
        fails(EINVAL, files.write, f"{top}/memory.max", b"much")
        fails(ESRCH, files.write, f"{top}/cgroup.procs", b"999999")
        true(b"oom_kill 0" in files.read(f"{top}/memory.events"), "memory.events")
        fails(EBUSY, os.rmdir, top)
        true(b"populated 1" in files.read(f"{top}/cgroup.events"), "populated")
        files.write(f"{top}/cgroup.freeze", b"1")
        eventually(lambda: b"frozen 1" in files.read(f"{top}/cgroup.events"), 10, "it is frozen")
        files.write(f"{top}/cgroup.freeze", b"0")
        files.write(f"{top}/cgroup.kill", b"1")
        eventually(lambda: b"populated 0" in files.read(f"{top}/cgroup.events"), 10, "it is empty")
    finally:
        host.background.stop(job)
    os.rmdir(top)
    eq(host.os.path.exists(there), False)
    fails(ENOENT, os.rmdir, top)


@case("an export that is read-only refuses writes", who=[ROOT], needs="qtfs")
def read_only(t):
    host.server.start((*server.EXPORTS, ("/proc", "ro"), ("/sys", "rw")))
    try:
        filesystems.mount("/proc", PROC)
        true(files.read(f"{PROC}/loadavg"), "reads work")
        fails(EROFS, files.write, f"{PROC}/sys/vm/swappiness", b"60")
    finally:
        host.server.start(EXPORTS)


@case("directories of tracefs, which tells places behind its entries, are listed whole", who=[ROOT], needs="qtfs")
def tracefs(t):
    mount_both()
    for name in ("syscalls", "ext4", "."):
        there = sorted(host.os.listdir(f"/sys/kernel/tracing/events/{name}"))
        eq(sorted(os.listdir(f"{SYS}/kernel/tracing/events/{name}")), there, name)
        eq(sorted(entry.name for entry in os.scandir(f"{SYS}/kernel/tracing/events/{name}") if entry.stat()), there, name)
