# SPDX-License-Identifier: GPL-2.0
"""The link between the machines fails: operations wait and go on, each executed exactly once."""

import fcntl
import mmap
import os
import signal
import time
from errno import EIO, ETIMEDOUT

from qtest import (ROOT, case, counters, eq, eventually, fails, files, filesystems, host, lab, on_host, process, same_bytes,
                   spawn, took, true, within)

# Long enough that a connection is given up, not only some packets.
LONG_CUT = 22


class cut:
    """Cuts the link for a block, whatever happens in it."""

    def __enter__(self):
        lab.link("down")

    def __exit__(self, *_):
        lab.link("up")


def disturbed(child, cuts, limit):
    """Has the link down and up again and again while a child works; returns its result."""
    deadline = time.monotonic() + limit
    try:
        while child.alive() and cuts > 0 and time.monotonic() < deadline:
            lab.link("down")
            child.finished(0.3)
            lab.link("up")
            child.finished(0.3)
            cuts -= 1
    finally:
        lab.link("up")
    return child.result(limit)


@on_host
def reset_there():
    process.run("ss -K state established sport = :12345", check=False)


def kill_connections(t):
    """Resets all connections to the server, as a router in between might do; the client must have noticed."""
    before = counters.reconnects(t.fs.mnt)
    reset_there()
    eventually(lambda: counters.reconnects(t.fs.mnt) > before, 20, "the connections are reset")


# --- One operation at a time. ---

@case("a stat that is on its way waits, and is answered after the link is back", who=[ROOT], needs="qtfs")
def stat_waits(t):
    files.write("f", b"data")
    with cut():
        child = spawn(lambda: os.stat("f").st_size)
        true(child.sleeps(10), "the stat waits")
    eq(child.result(30), 4)


@case("a long cut, after which the connections are made anew, changes nothing", who=[ROOT], needs="qtfs", limit=120)
def long_cut(t):
    files.write("f", b"data")
    fd = os.open("f", os.O_RDWR)
    with cut():
        child = spawn(os.mkdir, "d")
        true(child.sleeps(10), "the mkdir waits")
        false_end = child.finished(LONG_CUT)
        eq(false_end, False, "ended without a link")
    child.result(60)
    eq(sorted(host.os.listdir(t.host_dir)), ["d", "f"])
    os.pwrite(fd, b"more", 4)
    os.fsync(fd)
    os.close(fd)
    eq(host.files.read(t.there("f")), b"datamore")


@case("connections that are reset are made anew at once", who=[ROOT], needs="qtfs", limit=120)
def reset(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    for number in range(5):
        kill_connections(t)
        os.pwrite(fd, b"%d" % number, number)
        os.fsync(fd)
        os.mkdir(f"d{number}")
        eq(files.names(), sorted(["f"] + [f"d{other}" for other in range(number + 1)]))
    os.close(fd)
    eq(host.files.read(t.there("f")), b"01234")


@case("a big write goes on where it was", who=[ROOT], needs="qtfs", limit=120)
def big_write(t):
    data = files.pattern(12 << 20, 1)

    def write():
        fd = os.open("f", os.O_CREAT | os.O_WRONLY)
        files.write_all(fd, data)
        os.fsync(fd)
        os.close(fd)

    disturbed(spawn(write), 6, 90)
    eq(host.os.stat(t.there("f")).st_size, len(data))
    eq(host.files.digest(t.there("f")), files.digest("f"))
    same_bytes(files.read("f"), data)


@case("a big read goes on where it was", who=[ROOT], needs="qtfs", limit=120)
def big_read(t):
    host.call(__file__, "make_large", t.there("f"), 12)
    wanted = host.files.digest(t.there("f"))
    eq(disturbed(spawn(files.digest, "f"), 6, 90), wanted)


def make_large(path, count):
    files.write(path, files.pattern(count << 20, 2))


# --- Storms: exactly once. ---

def mkdir_storm(count):
    for number in range(count):
        os.mkdir(f"d{number}")


def rename_storm(count):
    files.write("n0")
    for number in range(count):
        os.rename(f"n{number}", f"n{number + 1}")


def unlink_storm(count):
    for number in range(count):
        os.unlink(f"u{number}")


def create_storm(count):
    for number in range(count):
        fd = os.open(f"c{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(fd, b"%d" % number)
        os.close(fd)


def append_storm(count):
    fd = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number in range(count):
        os.write(fd, b"record %6d\n" % number)
        if number % 10 == 0:
            os.fsync(fd)
    os.close(fd)


@case("storms of mkdir, rename, unlink, O_EXCL and append while the link comes and goes: each is done exactly once",
      who=[ROOT], needs="qtfs", limit=240)
def storms(t):
    count = 150
    host.files.make_many(t.host_dir, count, "u")
    before = counters.read(t.fs.mnt)
    storm = [spawn(function, count) for function in (mkdir_storm, rename_storm, unlink_storm, create_storm, append_storm)]

    def all_storms():
        for child in storm:
            if child.alive():
                return False
        return True

    cuts = 0
    try:
        while not all_storms() and cuts < 25:
            lab.link("down")
            storm[0].finished(0.05 + 0.1 * (cuts % 5))
            lab.link("up")
            if cuts % 3 == 0:
                kill_connections(t)
            eventually(lambda: counters.went_on(t.fs.mnt, before) or all_storms(), 30, "something goes on between two cuts")
            before = counters.read(t.fs.mnt)
            cuts += 1
    finally:
        lab.link("up")
    for child in storm:
        child.result(120)
    t.note(f"{cuts} cuts: {counters.read(t.fs.mnt)}")
    true(cuts >= 3, f"{cuts} cuts")
    names = host.os.listdir(t.host_dir)
    eq(sorted(name for name in names if name[0] == "d"), sorted(f"d{number}" for number in range(count)))
    eq([name for name in names if name[0] == "n"], [f"n{count}"])
    eq([name for name in names if name[0] == "u"], [])
    eq(len([name for name in names if name[0] == "c"]), count)
    eq(host.files.read(t.there("c77")), b"77")
    eq(host.files.read(t.there("log")), b"".join(b"record %6d\n" % number for number in range(count)))


@case("repeated requests are repeated: the counters show retransmissions", who=[ROOT], needs="qtfs")
def retransmits(t):
    before = counters.read(t.fs.mnt)
    with cut():
        child = spawn(os.mkdir, "d")
        true(child.sleeps(10), "the mkdir waits")
        # The connection dies with the request on its way.
        process.run("ss -K state established dport = :12345", check=False)
    child.result(60)
    spent = counters.read(t.fs.mnt) - before
    eq(spent.count("MKDIR", "requests"), 1)
    true(spent.total("retransmits") >= 1, f"retransmissions: {spent}")
    eq(host.os.listdir(t.host_dir), ["d"])


@case("loss and delay make it slow, not wrong", who=[ROOT], needs="qtfs", limit=180)
def lossy(t):
    lab.link("delay", 20)
    lab.link("loss", 3)
    try:
        data = files.pattern(1 << 20, 9)
        files.write("f", data)
        for number in range(10):
            os.mkdir(f"d{number}")
        same_bytes(files.read("f"), data)
    finally:
        lab.link("reset")
    eq(len(host.os.listdir(t.host_dir)), 11)
    same_bytes(host.files.read(t.there("f")), data)


# --- Who waits can be ended. ---

@case("processes that wait for a host that is gone can be killed by SIGKILL, whatever they do", who=[ROOT], needs="qtfs", limit=180)
def killable(t):
    host.files.write(t.there("f"), files.pattern(1 << 20))
    host.files.write(t.there("g"), b"data")
    host.files.make_many(t.host_dir, 10, "n")
    fd = os.open("g", os.O_RDWR)
    actions = {
        "stat": lambda: os.stat("f"), "open": lambda: os.open("f", os.O_RDONLY), "list": lambda: os.listdir("."),
        "read": lambda: files.read("f"), "mkdir": lambda: os.mkdir("new"), "create": lambda: files.write("created", b"x"),
        "unlink": lambda: os.unlink("n1"), "rename": lambda: os.rename("n2", "n3"), "chmod": lambda: os.chmod("n4", 0o600),
        "statfs": lambda: os.statvfs("."), "getxattr": lambda: os.listxattr("n5"), "readlink": lambda: os.readlink("n6"),
        "lock": lambda: lock_wait(fd), "fsync": lambda: write_and_sync(fd), "truncate": lambda: os.truncate("n7", 5),
        "O_DIRECT": lambda: direct_write(), "fallocate": lambda: os.posix_fallocate(fd, 0, 100)}
    with cut():
        children = {name: spawn(action) for name, action in actions.items()}
        for name, child in children.items():
            true(child.sleeps(10), f"{name} waits")
        for child in children.values():
            child.kill()
        with took() as time_taken:
            stuck = [name for name, child in children.items() if not child.finished(15)]
        report = process.stacks([children[name].pid for name in stuck])
        eq(stuck, [], f"not killed\n{report}\n")
        t.note(f"all dead after {time_taken.seconds:.1f} s")
    os.listdir(".")
    eq(os.fstat(fd).st_ino, host.os.stat(t.there("g")).st_ino)
    os.close(fd)


def lock_wait(fd):
    fcntl.lockf(fd, fcntl.LOCK_EX)


def write_and_sync(fd):
    os.write(fd, b"dirty")
    os.fsync(fd)


def direct_write():
    fd = os.open("direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    os.pwritev(fd, [mmap.mmap(-1, 4096)], 0)


@case("signals that do not kill are delivered after the wait", who=[ROOT], needs="qtfs")
def other_signals(t):
    files.write("f", b"data")

    def wait():
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append("USR1"))
        size = os.stat("f").st_size
        return size, seen

    with cut():
        child = spawn(wait)
        true(child.sleeps(10), "the stat waits")
        child.kill(signal.SIGUSR1)
    eq(child.result(30), (4, ["USR1"]))


@case("the other mounts and file systems of this machine go on while one host is gone", who=[ROOT], needs="qtfs")
def others_go_on(t):
    files.write("f", b"data")
    with cut():
        child = spawn(os.stat, "f")
        true(child.sleeps(10), "the stat waits")
        spawn(local_work).result(30)
        eq(child.alive(), True, "the stat still waits")
    child.result(30)


def local_work():
    """What has nothing to do with the host."""
    files.write("/dev/shm/qtest-local", b"x")
    os.listdir("/")
    os.listdir("/mnt")
    files.read("/proc/self/mounts")
    files.read("/proc/self/mountstats")


# --- soft ---

@case("soft,timeo= makes operations fail with ETIMEDOUT instead of waiting, and work again later", who=[ROOT], needs="qtfs", limit=120,
      loses=True)
def soft(t):
    files.write("f", files.pattern(100_000))
    target = "/mnt/soft"
    os.makedirs(target, exist_ok=True)
    filesystems.mount(t.host_dir, target, "soft", "timeo=20")
    try:
        files.read(f"{target}/f")
        fd = os.open(f"{target}/f", os.O_RDWR)
        with cut():
            for name, action in (("stat", lambda: os.stat(f"{target}/f")), ("mkdir", lambda: os.mkdir(f"{target}/d")),
                                 ("list", lambda: os.listdir(target)), ("open", lambda: os.open(f"{target}/g", os.O_CREAT | os.O_RDWR))):
                with took() as time_taken:
                    fails(ETIMEDOUT, spawn(action).result, 40)
                within(time_taken.seconds, 1, 40, f"seconds of {name} with timeo=20 (2 s)")
            # A part of a block is written only once the rest is known to be new.
            fails(ETIMEDOUT, os.pwrite, fd, b"part", 0)
            os.pwrite(fd, b"lost?".ljust(4096), 0)
            fails((ETIMEDOUT, EIO), os.fsync, fd)
        eventually(lambda: works(target), 20, "it works again")
        eq(len(files.read(f"{target}/f")), 100_000)
        os.close(fd)
    finally:
        filesystems.umount(target, "-f")


def works(target):
    try:
        os.stat(f"{target}/f")
        return True
    except OSError:
        return False


@case("an error of write-back is told by the next fsync or close, once", who=[ROOT], needs="qtfs", limit=90, loses=True)
def writeback_error(t):
    target = "/mnt/soft"
    os.makedirs(target, exist_ok=True)
    filesystems.mount(t.host_dir, target, "soft", "timeo=20")
    try:
        fd = os.open(f"{target}/f", os.O_CREAT | os.O_RDWR)
        os.fsync(fd)
        with cut():
            os.pwrite(fd, b"x" * 5000, 0)
            fails((ETIMEDOUT, EIO), os.fsync, fd)
        eventually(lambda: works(target), 20, "it works again")
        os.fsync(fd)
        os.pwrite(fd, b"second", 0)
        os.fsync(fd)
        eq(host.files.read(t.there("f"), 0, 6), b"second")
        os.close(fd)
    finally:
        filesystems.umount(target, "-f")


@case("locks are kept over a short cut, and files stay open", who=[ROOT], needs="qtfs", limit=120)
def locks_kept(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, b"before")
    gone = os.open("gone", os.O_CREAT | os.O_RDWR)
    os.write(gone, b"unlinked")
    os.unlink("gone")
    for _ in range(2):
        with cut():
            child = spawn(os.stat, ".")
            child.finished(3)
        kill_connections(t)
        child.result(30)
        eq(host.syscalls.try_flock(t.there("f"), fcntl.LOCK_EX), False)
        eq(os.pread(gone, 10, 0), b"unlinked")
    os.write(fd, b"-after")
    os.fsync(fd)
    eq(host.files.read(t.there("f")), b"before-after")
    os.close(fd)
    eventually(lambda: host.syscalls.try_flock(t.there("f"), fcntl.LOCK_EX), what="the lock is released with the file")


@case("a session whose client is gone is ended by the host: its locks are free again", who=[ROOT], needs="qtfs", limit=200, only_full=True)
def client_gone(t):
    target = "/mnt/soft"
    os.makedirs(target, exist_ok=True)
    filesystems.mount(t.host_dir, target)
    fd = os.open(f"{target}/f", os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    eq(host.syscalls.try_flock(t.there("f"), fcntl.LOCK_EX), False)
    with cut():
        # The file is open: this one gives up what waits, and the next one can unmount.
        filesystems.umount(target, "-f", check=False)
        os.close(fd)
        filesystems.umount(target, "-f")
        eventually(lambda: host.syscalls.try_flock(t.there("f"), fcntl.LOCK_EX), 120, "the host released the lock")
