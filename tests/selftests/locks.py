# SPDX-License-Identifier: GPL-2.0
"""Locks: flock, POSIX ranges and open-file-description ranges, against processes here and on the host."""

import fcntl
import mmap
import os
import signal
import subprocess
import time
from errno import EACCES, EAGAIN, EBADF, EDEADLK, EINTR, EINVAL
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN

from qtest import ROOT, case, counters, eq, eventually, fails, files, filesystems, host, on_host, run, spawn, syscalls, true
from qtest.sides import Here, There
from qtest.syscalls import lock, test_lock

BUSY = (EAGAIN, EACCES)


def opened(name="f"):
    """A file that exists, open."""
    return os.open(name, os.O_CREAT | os.O_RDWR, 0o666)


@on_host
def host_lock(path, kind, start=0, length=0, ofd=False):
    """The host's agent takes a range lock and keeps it."""
    fd = host.background.open_file(path)
    lock(fd, kind, start, length, ofd=ofd)
    return fd


@on_host
def host_unlock(fd, ofd=False):
    lock(fd, F_UNLCK, ofd=ofd)


@on_host
def host_flock(path, operation):
    fd = host.background.open_file(path)
    fcntl.flock(fd, operation)
    return fd


def child_tries(path, kind, start=0, length=0, ofd=False):
    """Whether another process here could have the lock."""
    return spawn(syscalls.try_lock, path, kind, start, length, ofd).result()


# --- flock ---

@case("flock: shared locks go together, an exclusive one with none")
def flock_basic(t):
    one, two = opened(), opened()
    fcntl.flock(one, LOCK_SH)
    fcntl.flock(two, LOCK_SH | LOCK_NB)
    fails(EAGAIN, fcntl.flock, one, LOCK_EX | LOCK_NB)
    fcntl.flock(two, LOCK_UN)
    fcntl.flock(one, LOCK_EX | LOCK_NB)
    fails(EAGAIN, fcntl.flock, two, LOCK_SH | LOCK_NB)
    fcntl.flock(one, LOCK_UN)
    fcntl.flock(two, LOCK_EX | LOCK_NB)


@case("flock: belongs to the open file, so dup and fork share it, and close of the last ends it")
def flock_owner(t):
    one, two = opened(), opened()
    fcntl.flock(one, LOCK_EX)
    copy = os.dup(one)
    os.close(one)
    fails(EAGAIN, fcntl.flock, two, LOCK_EX | LOCK_NB)
    os.close(copy)
    fcntl.flock(two, LOCK_EX | LOCK_NB)


@case("flock: holds against the host's processes, and theirs against ours")
def flock_host(t):
    fd = opened()
    fcntl.flock(fd, LOCK_EX)
    eq(host.syscalls.try_flock(t.there("f"), LOCK_SH), False)
    fcntl.flock(fd, LOCK_SH)
    eq(host.syscalls.try_flock(t.there("f"), LOCK_SH), True)
    eq(host.syscalls.try_flock(t.there("f"), LOCK_EX), False)
    fcntl.flock(fd, LOCK_UN)
    there = host_flock(t.there("f"), LOCK_EX)
    fails(EAGAIN, fcntl.flock, fd, LOCK_SH | LOCK_NB)
    host.background.close_file(there)
    fcntl.flock(fd, LOCK_EX | LOCK_NB)
    os.close(fd)
    eq(host.syscalls.try_flock(t.there("f"), LOCK_EX), True)


@case("flock: waits until the host lets go")
def flock_waits(t):
    fd = opened()
    there = host_flock(t.there("f"), LOCK_EX)
    waiter = spawn(fcntl.flock, fd, LOCK_EX)
    true(waiter.sleeps(), "the child waits")
    host.background.close_file(there)
    waiter.result(20)


@case("flock: of a directory and of a file opened for reading works", who=[ROOT])
def flock_directory(t):
    os.mkdir("d")
    one, two = os.open("d", os.O_RDONLY), os.open("d", os.O_RDONLY)
    fcntl.flock(one, LOCK_EX)
    fails(EAGAIN, fcntl.flock, two, LOCK_EX | LOCK_NB)


@case("flock(1) on both machines", who=[ROOT])
def flock_tool(t):
    fd = opened()
    fcntl.flock(fd, LOCK_EX)
    eq(host.run(["flock", "-n", t.there("f"), "true"], check=False).status, 1)
    fcntl.flock(fd, LOCK_UN)
    eq(host.run(["flock", "-n", t.there("f"), "true"], check=False).status, 0)


# --- POSIX ranges ---

@case("ranges: read locks go together, write locks with none that overlaps")
def posix_basic(t):
    fd = opened()
    lock(fd, F_WRLCK, 10, 10)
    path = t.path("f")
    eq(child_tries(path, F_RDLCK, 0, 10), True)
    eq(child_tries(path, F_RDLCK, 0, 11), False)
    eq(child_tries(path, F_WRLCK, 19, 1), False)
    eq(child_tries(path, F_WRLCK, 20, 0), True)
    eq(child_tries(path, F_WRLCK), False)
    lock(fd, F_RDLCK, 10, 10)
    eq(child_tries(path, F_RDLCK), True)
    eq(child_tries(path, F_WRLCK, 15, 1), False)
    lock(fd, F_UNLCK)
    eq(child_tries(path, F_WRLCK), True)


@case("ranges: hold against the host's processes, and theirs against ours")
def posix_host(t):
    fd = opened()
    lock(fd, F_WRLCK, 100, 50)
    eq(host.syscalls.try_lock(t.there("f"), F_RDLCK, 149, 1), False)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 150, 10), True)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 0, 100), True)
    lock(fd, F_UNLCK, 100, 25)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 100, 25), True)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 100, 26), False)
    there = host_lock(t.there("f"), F_WRLCK, 0, 10)
    fails(BUSY, lock, fd, F_RDLCK, 5, 10)
    lock(fd, F_RDLCK, 10, 10)
    host_unlock(there)
    lock(fd, F_WRLCK, 0, 20)


@case("ranges: F_GETLK tells who is in the way, here and there")
def posix_test(t):
    fd = opened()
    eq(test_lock(fd, F_WRLCK), None)
    there = host_lock(t.there("f"), F_WRLCK, 7, 3)
    kind, start, length, pid = test_lock(fd, F_WRLCK)
    eq((kind, start, length), (F_WRLCK, 7, 3))
    true(pid != 0, "a process id is told")
    eq(test_lock(fd, F_WRLCK, 20, 5), None)
    host_unlock(there)

    def hold():
        lock(fd, F_RDLCK, 30, 5)
        signal.pause()

    child = spawn(hold)
    eventually(lambda: test_lock(fd, F_WRLCK, 30, 1))
    kind, start, length, pid = test_lock(fd, F_WRLCK)
    eq((kind, start, length, pid), (F_RDLCK, 30, 5, child.pid))
    eq(test_lock(fd, F_RDLCK), None)
    child.kill()


@case("ranges: the host is told of a lock that is held here")
def posix_test_there(t):
    fd = opened()
    lock(fd, F_WRLCK, 5, 6)
    kind, start, length, pid = host.call(__file__, "ask_there", t.there("f"))
    eq((kind, start, length), (F_WRLCK, 5, 6))
    true(pid != 0, "a process id is told")


def ask_there(path):
    fd = os.open(path, os.O_RDWR)
    try:
        return test_lock(fd, F_WRLCK)
    finally:
        os.close(fd)


@case("ranges: splitting, joining and changing the kind of one's own locks")
def posix_split(t):
    fd = opened()
    path = t.path("f")
    lock(fd, F_WRLCK, 0, 100)
    lock(fd, F_UNLCK, 40, 20)
    for start, length, free in ((0, 40, False), (39, 1, False), (40, 20, True), (59, 2, False), (60, 40, False), (100, 0, True)):
        eq(child_tries(path, F_WRLCK, start, length), free, f"{start}+{length}")
    lock(fd, F_RDLCK, 20, 60)
    eq(child_tries(path, F_RDLCK, 40, 20), True)
    eq(child_tries(path, F_RDLCK, 0, 20), False)
    eq(child_tries(path, F_RDLCK, 20, 60), True)
    lock(fd, F_WRLCK, 0, 100)
    eq(child_tries(path, F_RDLCK, 50, 1), False)


@case("ranges: closing any descriptor of the file releases the process's locks")
def posix_close(t):
    fd = opened()
    lock(fd, F_WRLCK)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK), False)
    os.close(os.open("f", os.O_RDONLY))
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK), True)
    os.close(fd)


@case("ranges: closing a file that was written releases what the process has locked by another descriptor, as close(2) does")
def close_written(t):
    files.write("f", b"old data")
    fd = os.open("f", os.O_RDONLY)
    lock(fd, F_RDLCK, 0, 10)
    other = os.open("f", os.O_RDWR)
    # Dirty when it is closed: what write(2) writes to a file with locked ranges goes to the host at once.
    with mmap.mmap(other, 4, trackfd=False) as mapping:
        mapping[:] = b"data"
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 0, 10), False)
    os.close(other)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 0, 10), True)
    os.close(fd)


@case("ranges: the end of an open file that the process has closed before leaves its locks alone")
def posix_other_file(t):
    one, two = opened(), opened()
    lock(two, F_WRLCK, 0, 5)
    lock(one, F_UNLCK)
    test_lock(two, F_WRLCK)
    child = spawn(signal.pause)
    os.close(two)
    lock(one, F_WRLCK, 0, 5)
    child.kill()
    true(child.finished(10), "dead")
    for _ in range(20):
        eq(host.syscalls.try_lock(t.there("f"), F_WRLCK), False)
        time.sleep(0.05)
    os.close(one)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK), True)


@case("ranges: the death of a process releases its locks, by SIGKILL too")
def posix_death(t):
    fd = opened()

    def hold():
        lock(fd, F_WRLCK)
        signal.pause()

    child = spawn(hold)
    eventually(lambda: test_lock(fd, F_WRLCK))
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK), False)
    child.kill()
    true(child.finished(10), "dead")
    eventually(lambda: host.syscalls.try_lock(t.there("f"), F_WRLCK), what="the host can have the lock")


@case("ranges: a wait ends when the host unlocks")
def posix_waits(t):
    fd = opened()
    there = host_lock(t.there("f"), F_WRLCK)
    waiter = spawn(lock, fd, F_WRLCK, 0, 0, True)
    true(waiter.sleeps(), "the child waits")
    host_unlock(there)
    waiter.result(20)


@case("ranges: waits hold no thread of engine, nothing is sent meanwhile, and each ends when it is interrupted", who=[ROOT], needs="qtfs")
def posix_waits_without_threads(t):
    fd = opened()
    there = host_lock(t.there("f"), F_WRLCK)
    before = host.server.engine_threads()
    begun = counters.read(t.fs.mnt)
    waiters = [spawn(lock, fd, F_WRLCK, number, 1, True) for number in range(24)]
    true(all(waiter.sleeps(20) for waiter in waiters), "all wait")
    eventually(lambda: (counters.read(t.fs.mnt) - begun).count("LOCK") >= 24, 20, "the host was asked for all")
    # Those that asked for the locks at once go when they have had nothing to do for a while.
    eventually(lambda: host.server.engine_threads() <= before + 2, 30, "no thread of engine waits")
    sent = counters.read(t.fs.mnt)
    for waiter in waiters[:12]:
        waiter.kill()
        true(waiter.finished(20), "it can be killed")
    spent = counters.read(t.fs.mnt) - sent
    eq(spent.count("LOCK"), 0, "locks that were asked for")
    host_unlock(there)
    for waiter in waiters[12:]:
        waiter.result(30)
    # Those that were killed did not get it afterwards.
    there = host_lock(t.there("f"), F_WRLCK)
    host_unlock(there)
    os.close(fd)


@case("ranges: the host waits until a process here unlocks")
def host_waits(t):
    fd = opened()
    lock(fd, F_WRLCK)
    job = host.background.start(__file__, "wait_for_lock", t.there("f"))
    true(host.background.sleeps(job), "the host's process waits")
    lock(fd, F_UNLCK)
    eq(host.background.finish(job, 20), "got it")


def wait_for_lock(path):
    fd = os.open(path, os.O_RDWR)
    lock(fd, F_WRLCK, wait=True)
    return "got it"


@case("ranges: a waiting process is interrupted by a signal, and killed by SIGKILL")
def posix_interrupt(t):
    fd = opened()
    there = host_lock(t.there("f"), F_WRLCK)

    def wait():
        signal.signal(signal.SIGALRM, raise_interrupted)
        try:
            lock(fd, F_WRLCK, wait=True)
        except InterruptedError:
            return "interrupted"
        return "locked"

    child = spawn(wait)
    true(child.sleeps(), "the child waits")
    child.kill(signal.SIGALRM)
    eq(child.result(10), "interrupted")
    child = spawn(wait)
    true(child.sleeps(), "the second child waits")
    child.kill()
    true(child.finished(10), "it is dead")
    host_unlock(there)
    # Nothing that was given up may have got the lock afterwards.
    eventually(lambda: host.syscalls.try_lock(t.there("f"), F_WRLCK), what="the lock is free")


def raise_interrupted(*_):
    raise InterruptedError(EINTR, "interrupted")


@case("ranges: two processes that wait for each other: EDEADLK")
def deadlock(t):
    fd = opened()
    read_end, write_end = os.pipe()

    def other():
        lock(fd, F_WRLCK, 0, 1)
        os.write(write_end, b"x")
        lock(fd, F_WRLCK, 1, 1, wait=True)

    lock(fd, F_WRLCK, 1, 1)
    child = spawn(other)
    os.read(read_end, 1)
    true(child.sleeps(), "the child waits")
    eventually(lambda: "->" in host.files.read("/proc/locks").decode(), 20, "the host has it wait")
    try:
        fails(EDEADLK, lock, fd, F_WRLCK, 0, 1, True)
    finally:
        child.kill()


def crosses(path, own, other, ready, go):
    """Locks a byte, says so, and asks for another one when it may. The errno."""
    with open(path, "r+b") as file:
        lock(file.fileno(), F_WRLCK, own, 1)
        files.write(ready, b"")
        eventually(lambda: os.path.exists(go), 60, go)
        try:
            lock(file.fileno(), F_WRLCK, other, 1, wait=True)
        except OSError as error:
            return error.errno
        return 0


@case("ranges: a process here and one of the host that wait for each other: EDEADLK for who comes last", needs="qtfs", limit=120)
def crossed(t):
    for sides in ((Here, There), (There, Here)):
        name = f"f{sides[0].__name__}"
        files.write(name, b"data")
        os.chmod(name, 0o666)
        runs = []
        for number, side in enumerate(sides):
            path = t.path if side is Here else t.there
            runs.append(side(crosses, path(name), number, 1 - number, *[path(f"{name}.{what}{number}") for what in ("ready", "go")]))
        for number in range(2):
            eventually(lambda number=number: os.path.exists(f"{name}.ready{number}"), 30, "it has its lock")
        files.write(f"{name}.go0", b"")
        inode = os.stat(name).st_ino
        eventually(lambda: any("->" in line and f":{inode} " in line for line in host.files.read("/proc/locks").decode().splitlines()), 30, "it waits on the host")
        files.write(f"{name}.go1", b"")
        eq([run.result(30) for run in reversed(runs)], [EDEADLK, 0], sides)


@case("ranges: need the file open for that direction: EBADF; nonsense is EINVAL")
def posix_errors(t):
    files.write("f", b"data")
    fd = os.open("f", os.O_RDONLY)
    fails(EBADF, lock, fd, F_WRLCK)
    lock(fd, F_RDLCK)
    os.close(fd)
    fd = os.open("f", os.O_WRONLY)
    fails(EBADF, lock, fd, F_RDLCK)
    lock(fd, F_WRLCK)
    fails(EINVAL, lock, fd, F_WRLCK, -5, 1)
    fails(EINVAL, lock, fd, 77)
    os.close(fd)


@case("ranges: many locks on one file, from both sides", who=[ROOT])
def many(t):
    fd = opened()
    for number in range(0, 200, 2):
        lock(fd, F_WRLCK, number * 10, 10)
    there = host.background.open_file(t.there("f"))
    for number in range(1, 200, 20):
        host.syscalls.lock(there, F_WRLCK, number * 10, 10)
    fails(BUSY, lock, fd, F_WRLCK, 10, 10)
    # From here on the agent's own locks are gone: it closes the file that it tries.
    for number in (0, 40, 198):
        eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, number * 10, 1), False)
    lock(fd, F_UNLCK, 0, 1000)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 0, 10), True)


# --- Open file descriptions ---

@case("OFD ranges: belong to the open file, conflict with those of another open in one process")
def ofd_basic(t):
    one, two = opened(), opened()
    lock(one, F_WRLCK, 0, 10, ofd=True)
    fails(BUSY, lock, two, F_WRLCK, 5, 10, ofd=True)
    fails(BUSY, lock, two, F_RDLCK, 5, 10)
    os.close(os.open("f", os.O_RDONLY))
    fails(BUSY, lock, two, F_WRLCK, 5, 10, ofd=True)
    kind, start, length, pid = test_lock(two, F_WRLCK, ofd=True)
    eq((kind, start, length, pid), (F_WRLCK, 0, 10, -1))
    os.close(one)
    lock(two, F_WRLCK, 0, 20, ofd=True)


@case("OFD ranges: hold against the host, and theirs against ours")
def ofd_host(t):
    fd = opened()
    lock(fd, F_WRLCK, 0, 10, ofd=True)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 0, 1, True), False)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 10, 1, True), True)
    lock(fd, F_UNLCK, ofd=True)
    there = host_lock(t.there("f"), F_WRLCK, 0, 10, True)
    fails(BUSY, lock, fd, F_WRLCK, 0, 1, ofd=True)
    host.background.close_file(there)
    lock(fd, F_WRLCK, 0, 1, ofd=True)
    os.close(fd)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK, 0, 1), True)


@case("OFD ranges: survive fork, and end with the last copy")
def ofd_fork(t):
    fd = opened()
    lock(fd, F_WRLCK, ofd=True)
    child = spawn(signal.pause)
    os.close(fd)
    eq(host.syscalls.try_lock(t.there("f"), F_WRLCK), False)
    child.kill()
    true(child.finished(10), "dead")
    eventually(lambda: host.syscalls.try_lock(t.there("f"), F_WRLCK), what="the lock is free")


class Probe:
    """Another DPU, which has opened f and waits, until it is killed, for a lock of its own."""

    def __init__(self, t, *script, hello=()):
        script = ["hello " + " ".join(hello), f"attach path={t.host_dir} -> root=attr.node", "open target=$root/f flags=READ|WRITE -> f=file", *script,
                  "lock file=$f owner=1 pid=1 kind=write start=0 end=9", "lock file=$f owner=2 pid=2 kind=write start=0 end=9 flags=WAIT"]
        command = [filesystems.program("qtfs-probe"), "--connect", "10.0.0.1:12345", "run"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # pylint: disable=consider-using-with
        self.process.stdin.write("\n".join(script))
        self.process.stdin.close()
        for _ in script[:-1]:
            line = self.process.stdout.readline()
        true(line.startswith("lock: ok"), line)
        eq(self.process.poll(), None, "it waits")
        eq(child_tries("f", F_WRLCK, 0, 10), False)

    def dies(self):
        """Its connections are gone; its session stays for a while: it might come back."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def says_hello(*hello):
    """Another session begins, and ends."""
    run([filesystems.program("qtfs-probe"), "--connect", "10.0.0.1:12345", "hello", *hello])


@case("locks of another DPU hold against ours and ours against theirs, and are released when it is gone", who=[ROOT], needs="qtfs", limit=200, only_full=True)
def other_dpu(t):
    fd = opened()
    lock(fd, F_WRLCK, 20, 10)
    Probe(t, "expect EAGAIN lock file=$f owner=1 pid=1 kind=write start=20 end=29").dies()
    eq(child_tries("f", F_WRLCK, 0, 10), False)
    waiter = spawn(lock, fd, F_WRLCK, 0, 10, True)
    true(waiter.sleeps(20), "it waits")
    waiter.result(120)


@case("a DPU that was started anew does not wait for the locks that it had before", who=[ROOT], needs="qtfs")
def started_anew(t):
    fd = opened()
    machine = "machine=" + "ab" * 16
    Probe(t, hello=(machine, "instance=1")).dies()
    says_hello("machine=" + "cd" * 16, "instance=2")
    says_hello(machine, "instance=1")
    says_hello("instance=2")
    eq(child_tries("f", F_WRLCK, 0, 10), False, "others do not matter, nor does one more of the same")
    says_hello(machine, "instance=2")
    lock(fd, F_WRLCK, 0, 10)
    os.close(fd)


@case("locked sections on both machines exclude each other", who=[ROOT], limit=120)
def mutual_exclusion(t):
    files.write("counter", b"0")
    job = host.background.start(__file__, "count_up", t.there("counter"), 60)
    count_up.local(t.path("counter"), 60)
    host.background.finish(job)
    eq(files.read("counter"), b"120")


@on_host
def count_up(path, times):
    for _ in range(times):
        fd = os.open(path, os.O_RDWR)
        lock(fd, F_WRLCK, wait=True)
        value = int(os.pread(fd, 20, 0)) + 1
        os.pwrite(fd, str(value).encode(), 0)
        os.fsync(fd)
        lock(fd, F_UNLCK)
        os.close(fd)


@case("what is dirty is on the host before a lock is released there", who=[ROOT])
def unlock_flushes(t):
    fd = opened()
    for number in range(5):
        lock(fd, F_WRLCK)
        os.pwrite(fd, b"%d" % number, 0)
        lock(fd, F_UNLCK)
        eq(host.files.read(t.there("f")), b"%d" % number)
    fcntl.flock(fd, LOCK_EX)
    os.pwrite(fd, b"flock", 0)
    fcntl.flock(fd, LOCK_UN)
    eq(host.files.read(t.there("f")), b"flock")


@case("/proc/locks on the host shows locks that are held here", who=[ROOT], needs="qtfs")
def proc_locks(t):
    fd = opened()
    lock(fd, F_WRLCK, 3, 4)
    number = os.stat("f").st_ino
    there = host.files.read("/proc/locks").decode()
    true(any(f":{number} 3 6" in line and "WRITE" in line for line in there.splitlines()), "the range is listed")
    lock(fd, F_UNLCK)
    there = host.files.read("/proc/locks").decode()
    true(not any(f":{number} 3 6" in line for line in there.splitlines()), "and gone after unlocking")


@case("more waiters than requests can be on their way: others are served, and the lock goes round", who=[ROOT], needs="qtfs", limit=180)
def crowd(t):
    fd = opened()
    fcntl.flock(fd, LOCK_EX)
    waiters = [spawn(locks_and_goes, t.path("f")) for _ in range(160)]
    for waiter in waiters:
        true(waiter.sleeps(60), "a child waits for the lock")
    os.mkdir("d")
    eq(os.stat("d").st_nlink, 2)
    fcntl.flock(fd, LOCK_UN)
    for waiter in waiters:
        waiter.result(120)
    os.close(fd)


def locks_and_goes(path):
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, LOCK_EX)
    os.close(fd)


@case("what others wrote under a lock is read under the next one, by a file that stayed open", needs="posix")
def seen_under_lock(t):
    files.write("f", b"0" * 100)
    fd = os.open("f", os.O_RDWR)
    eq(os.pread(fd, 100, 0), b"0" * 100)
    there = host_lock(t.there("f"), F_WRLCK)
    host.files.write_at(t.there("f"), 10, b"host")
    host_unlock(there)
    lock(fd, F_WRLCK, 20, 4)
    os.pwrite(fd, b"here", 20)
    lock(fd, F_UNLCK, 20, 4)
    eq(os.pread(fd, 30, 0), b"0" * 10 + b"host" + b"0" * 6 + b"here" + b"0" * 6)
    os.close(fd)
    eq(host.files.read(t.there("f")), b"0" * 10 + b"host" + b"0" * 6 + b"here" + b"0" * 76)
