# SPDX-License-Identifier: GPL-2.0
"""poll, select, epoll and inotify on files of the host's /proc and /sys: what the host says, and wake-ups from there."""

import os
import select
import signal
import time
from errno import EBUSY, EINVAL, ENODEV, EPERM

from qtest import ROOT, case, counters, eq, eventually, fails, files, host, lab, on_host, run, server, spawn, true
from qtest.inotify import BITS, Told
from qtest.kernelfs import EXPORTS, PROC, SYS, mount_both, set_up, tear_down  # pylint: disable=unused-import

# The cases mount what they need.
MANUAL = True
MOUNTS = f"{PROC}/1/mounts"
# What a file says of a change.
CHANGED = select.POLLERR | select.POLLPRI
TARGET = "/data/poll-mount"
GROUP = "/sys/fs/cgroup/qtfs-poll"


@on_host
def mount_there():
    """A change of the host's mounts, and back."""
    os.makedirs(TARGET, exist_ok=True)
    run(["mount", "-t", "tmpfs", "none", TARGET])
    run(["umount", TARGET])


@on_host
def mount_or_unmount_there():
    """One change of the host's mounts; the next one takes it back."""
    if os.path.ismount(TARGET):
        run(["umount", TARGET])
    else:
        run(["mount", "-t", "tmpfs", "none", TARGET])


def answers(path, flags=os.O_RDONLY):
    """What poll and epoll say at once of a file that is opened for that, before and after it is read."""
    found = []
    for read in (False, True):
        fd = os.open(path, flags)
        if read:
            os.read(fd, 1 << 16)
        found.append(now(fd))
        with select.epoll() as epoll:
            try:
                epoll.register(fd, select.EPOLLIN | select.EPOLLPRI)
                found.append([events for _, events in epoll.poll(0)])
            except PermissionError as e:
                found.append(e.errno)
        os.close(fd)
    return found


@on_host
def answers_there(path, flags=os.O_RDONLY):
    """The same on the host."""
    return answers(path, flags)


def now(fd, events=select.POLLIN | select.POLLPRI | select.POLLOUT):
    """What a file is ready for."""
    poll = select.poll()
    poll.register(fd, events)
    found = dict(poll.poll(0))
    return found.get(fd, 0)


def wait(fd, events=select.POLLPRI, seconds=30):
    """Waits until it is ready; what for."""
    poll = select.poll()
    poll.register(fd, events)
    return dict(poll.poll(seconds * 1000)).get(fd, 0)


def waiting(function, *arguments):
    """A child that waits for something."""
    child = spawn(function, *arguments)
    true(child.sleeps(10), "it waits")
    return child


def changed(fd):
    """That it is, when the host answers; who asks waits for that for a moment only."""
    eventually(lambda: now(fd, select.POLLPRI) == CHANGED, 20, "it has changed")


class quiet:
    """Checks that nothing crosses the wire meanwhile."""

    def __enter__(self):
        self.before = counters.read(PROC)

    def __exit__(self, *_):
        spent = counters.read(PROC) - self.before
        eq(spent.count("POLL"), 0, "requests of who only waits")


@case("poll says at once what it says on the host", who=[ROOT], needs="qtfs")
def at_once(t):
    mount_both()
    for path in ("/proc/1/mounts", "/proc/1/mountinfo", "/proc/1/stat", "/proc/sys/kernel/hostname", "/proc/version",
                 "/proc/pressure/io", "/sys/fs/cgroup/cgroup.stat", "/sys/fs/cgroup/cpu.pressure", "/sys/kernel/uevent_seqnum"):
        eventually(lambda: answers("/mnt" + path) == answers_there(path), 30, path)  # pylint: disable=cell-var-from-loop
    eq(answers(f"{PROC}/1/stat")[1], EPERM)
    eventually(lambda: answers(f"{PROC}/pressure/cpu", os.O_RDWR) == answers_there("/proc/pressure/cpu", os.O_RDWR), 30, "for writing too")


@case("a mount made on the host wakes who polls /proc/PID/mounts, and is told once", who=[ROOT], needs="qtfs")
def mounts(t):
    mount_both()
    fd = os.open(MOUNTS, os.O_RDONLY)
    eq(now(fd, select.POLLPRI), 0)
    child = waiting(wait, fd)
    with quiet():
        eq(child.finished(1), False)
    mount_there()
    eq(child.result(20), CHANGED)
    # Two changes, and the child may have been faster than the second.
    now(fd, select.POLLPRI)
    eq(now(fd, select.POLLPRI), 0)
    for _ in range(5):
        before = counters.read(PROC)
        mount_there()
        asked = time.monotonic()
        found = now(fd, select.POLLPRI)
        # The kernel of this machine waits a second for the host.
        if time.monotonic() - asked < 0.9:
            break
        now(fd, select.POLLPRI)
    eq(found, CHANGED)
    eq((counters.read(PROC) - before).count("POLL"), 1)
    # Only who asks for errors alone is woken as well.
    child = waiting(wait, fd, 0)
    mount_there()
    eq(child.result(20), select.POLLERR)
    os.close(fd)


@case("select and both kinds of epoll wake up", who=[ROOT], needs="qtfs")
def others(t):
    mount_both()
    fd = os.open(MOUNTS, os.O_RDONLY)
    child = waiting(lambda: [list(found) for found in select.select([], [], [fd], 30)])
    mount_there()
    eq(child.result(20), [[], [], [fd]])
    now(fd)
    for edge in (0, select.EPOLLET):
        epoll = select.epoll()
        epoll.register(fd, select.EPOLLPRI | edge)
        epoll.poll(0)
        eq(epoll.poll(0.1), [])
        for _ in range(3):
            child = waiting(lambda: epoll.poll(30))  # pylint: disable=cell-var-from-loop
            with quiet():
                eq(child.finished(0.5), False)
            mount_or_unmount_there()
            eq(child.result(20), [(fd, CHANGED)])
            epoll.poll(0)
            eq(epoll.poll(0), [])
        epoll.close()
    os.close(fd)


def eat_there():
    """Has more memory than the cgroup is to have."""
    files.write(f"{GROUP}/cgroup.procs", b"%d" % os.getpid())
    memory = bytearray(3 << 20)
    signal.pause()
    return len(memory)


@case("cgroup.events, memory.events and cgroup.freeze: poll tells of a change until it is read", who=[ROOT], needs="qtfs", limit=120)
def cgroup(t):
    mount_both()
    top = SYS + GROUP.removeprefix("/sys")
    files.write(f"{SYS}/fs/cgroup/cgroup.subtree_control", b"+memory")
    os.mkdir(top)
    job = host.background.start("time", "sleep", 600)
    try:
        fd = os.open(f"{top}/cgroup.events", os.O_RDONLY)
        true(b"populated 0" in os.read(fd, 4096), "it is empty")
        eq(now(fd, select.POLLPRI), 0)
        child = waiting(wait, fd)
        host.files.write(f"{GROUP}/cgroup.procs", str(job).encode())
        eq(child.result(20), CHANGED)
        # As on the host: it stays so until the file is read.
        changed(fd)
        changed(fd)
        true(b"populated 1" in os.pread(fd, 4096, 0), "it is populated")
        eq(now(fd, select.POLLPRI), 0)
        for value, text in ((b"1", b"frozen 1"), (b"0", b"frozen 0")):
            child = waiting(wait, fd)
            files.write(f"{top}/cgroup.freeze", value)
            eq(child.result(20), CHANGED)
            true(text in os.pread(fd, 4096, 0), text)
        with open(f"{top}/memory.events", "rb", buffering=0) as events:
            events.read(4096)
            child = waiting(wait, events.fileno())
            files.write(f"{top}/memory.high", b"2097152")
            eater = host.background.start(__file__, "eat_there")
            eq(child.result(30), CHANGED)
            host.background.stop(eater)
        child = waiting(wait, fd)
        files.write(f"{top}/cgroup.kill", b"1")
        eq(child.result(20), CHANGED)
        true(b"populated 0" in os.pread(fd, 4096, 0), "it is empty")
        # Of a cgroup that goes away the host tells only who asks.
        host.os.rmdir(GROUP)
        changed(fd)
        fails(ENODEV, os.pread, fd, 4096, 0)
        os.close(fd)
    finally:
        host.background.stop(job)
        if host.os.path.exists(GROUP):
            host.os.rmdir(GROUP)


def work():
    """Keeps a processor busy."""
    while True:
        pass


@case("cgroup.events tells by inotify too", who=[ROOT], needs="qtfs")
def cgroup_inotify(t):
    mount_both()
    host.os.mkdir(GROUP)
    top = f"{SYS}/fs/cgroup/qtfs-poll"
    told = Told(f"{top}/cgroup.events", mask=BITS["MODIFY"])
    try:
        job = host.background.start(__file__, "lives_on")
        for value, change in ((b"populated 1", lambda: host.files.write(f"{GROUP}/cgroup.procs", str(job).encode())),
                              (b"populated 0", lambda: host.background.stop(job))):
            change()
            told.until("cgroup.events", "MODIFY", "")
            eventually(lambda: value in files.read(f"{top}/cgroup.events"), 20, value)  # pylint: disable=cell-var-from-loop
    finally:
        told.close()
        eventually(lambda: b"populated 0" in host.files.read(f"{GROUP}/cgroup.events"), 20, "it is empty")
        host.os.rmdir(GROUP)


def lives_on():
    """A process of the host."""
    signal.pause()


@case("a pressure file is polled for its trigger", who=[ROOT], needs="qtfs")
def pressure(t):
    mount_both()
    path = f"{PROC}/pressure/cpu"
    fd = os.open(path, os.O_RDWR)
    fails(EINVAL, os.write, fd, b"some much")
    os.write(fd, b"some 1 500000\0")
    fails(EBUSY, os.write, fd, b"some 1 500000\0")
    # Work for more processors than the host has.
    jobs = [host.background.start(__file__, "work") for _ in range(4)]
    try:
        eq(wait(fd), select.POLLPRI)
    finally:
        for job in jobs:
            host.background.stop(job)
        os.close(fd)


@case("who waits can be killed, also while the link is cut, and others go on", who=[ROOT], needs="qtfs", limit=120)
def killed(t):
    mount_both()
    fd = os.open(MOUNTS, os.O_RDONLY)
    children = [waiting(wait, fd) for _ in range(3)]
    children[0].kill()
    true(children[0].finished(20), "killed")
    lab.link("down")
    try:
        children[1].kill()
        true(children[1].finished(20), "killed")
        # HOST does not answer, which is no reason to hang.
        child = spawn(now, fd)
        eq(child.result(20), 0)
    finally:
        lab.link("up")
    mount_there()
    eq(children[2].result(30), CHANGED)
    os.close(fd)


@case("a change while the link is cut is told afterwards", who=[ROOT], needs="qtfs", limit=180)
def link_cut(t):
    mount_both()
    fd = os.open(MOUNTS, os.O_RDONLY)
    child = waiting(wait, fd, select.POLLPRI, 120)
    lab.link("down")
    try:
        # HOST is told by another line than the one that is cut.
        mount_there()
        before = counters.reconnects(PROC)
        eventually(lambda: counters.reconnects(PROC) > before, 60, "the connection is given up")
        eq(child.finished(0), False)
    finally:
        lab.link("up")
    eq(child.result(60), CHANGED)
    os.close(fd)


@on_host
def reload_server():
    """The server's module anew."""
    server.stop_engine()
    server.unload()
    server.start(EXPORTS)


@case("when the server is started anew, who waits is told that something may have changed", who=[ROOT], needs="qtfs", limit=180)
def reloaded(t):
    mount_both()
    fd = os.open(MOUNTS, os.O_RDONLY)
    child = waiting(wait, fd, select.POLLPRI, 120)
    reload_server()
    eq(child.result(120) & CHANGED, CHANGED)
    eq(now(fd, select.POLLPRI), 0)
    child = waiting(wait, fd)
    mount_there()
    eq(child.result(20), CHANGED)
    os.close(fd)


@case("1,000 files that are waited for cost no traffic, and each is told of", who=[ROOT], needs="qtfs", limit=180)
def many(t):
    mount_both()
    epoll = select.epoll()
    fds = [os.open(MOUNTS, os.O_RDONLY) for _ in range(1000)]
    for fd in fds:
        epoll.register(fd, select.EPOLLPRI | select.EPOLLET)
    eq(epoll.poll(0), [])
    with quiet():
        eq(epoll.poll(1), [])
    before = counters.read(PROC)
    mount_there()
    seen = set()

    def all_seen():
        seen.update(fd for fd, _ in epoll.poll(1, 1000))
        return len(seen) == len(fds)

    eventually(all_seen, 60, "all are told")
    t.note(f"{(counters.read(PROC) - before).count('POLL')} requests for {len(fds)} files and two changes")
    for fd in fds:
        os.close(fd)
    epoll.close()
