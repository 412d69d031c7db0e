# SPDX-License-Identifier: GPL-2.0
"""A server that lies: programs get an errno, the kernel takes no harm, and the mount goes away as any other.

The server is `qtfs-probe lie` on the host. It makes up three files and answers for them as it should, until somebody looks up
the name of a lie.
"""

import fcntl
import os
import select
import socket
import time
from contextlib import contextmanager
from errno import EIO, EISDIR, ENOENT, EPROTO, ETIMEDOUT

from qtest import ROOT, case, counters, eq, eventually, fails, files, filesystems, host, kernellog, on_host, process, spawn, syscalls, true, within
from qtest.checks import patience
from qtest.filesystems import HOST_ADDRESS, program
from qtest.inotify import Inotify

# The cases mount what they need.
MANUAL = True
NEEDS = "qtfs"
TOP = "/mnt/liar"
PORT = 12301


def set_up(fs):
    """The module; nobody else is mounted."""
    if fs.name == "qtfs":
        host.server.start(fresh=True)
        filesystems.load_module(fresh=True)
        os.makedirs(TOP, exist_ok=True)


@on_host
def serve():
    """Lies until it is killed."""
    command = program("qtfs-probe")
    os.execv(command, [command, "lie", "--listen", f"{HOST_ADDRESS}:{PORT}"])


def is_listening():
    """Whether the liar is there."""
    try:
        socket.create_connection((HOST_ADDRESS, PORT), 5).close()
        return True
    except ConnectionRefusedError:
        return False


def lie(name):
    """Has the server tell a lie from now on."""
    fails(ENOENT, os.lstat, f"{TOP}/lie:{name}")


@contextmanager
def liar(name=None, *options):
    """A mount of the liar for a block; it can be unmounted afterwards."""
    job = host.background.start(__file__, "serve")
    try:
        eventually(is_listening, 10, "the liar listens")
        filesystems.mount("/made-up", TOP, f"server={HOST_ADDRESS}", f"port={PORT}", *options)
        eq(files.read(f"{TOP}/file"), b"contents")
        if name is not None:
            lie(name)
        yield
        filesystems.umount(TOP)
    finally:
        host.background.stop(job)


def blames(errno, function, *arguments):
    """The call fails, and the log says that the server is to blame."""
    kernellog.note("qtest: a lie follows")
    before = counters.reconnects(TOP)
    fails(errno, function, *arguments)
    eventually(lambda: counters.reconnects(TOP) > before, 20, "the connection is ended")


def opened(name, flags):
    """A descriptor that is closed at once."""
    os.close(os.open(f"{TOP}/{name}", flags, 0o600))


@case("without a lie all is well: the tree is listed, read, written, made, locked and polled", who=[ROOT], needs=NEEDS)
def honest(_):
    with liar():
        eq(sorted(entry.name for entry in os.scandir(TOP)), ["directory", "fifo", "file"])
        files.write(f"{TOP}/file", b"new contents")
        eq(files.read(f"{TOP}/file"), b"new contents")
        opened("new", os.O_CREAT | os.O_RDWR)
        opened(".", os.O_TMPFILE | os.O_RDWR)
        eq(os.listxattr(f"{TOP}/file"), ["user.abc"])
        with open(f"{TOP}/file", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
        with open(f"{TOP}/fifo", "rb", buffering=0) as file:
            eq(file.read(10), b"x")


@case("an errno that only the kernel knows is EIO, for contents of files and FIFOs", who=[ROOT], needs=NEEDS)
def kernel_errno(_):
    with liar():
        file = os.open(f"{TOP}/file", os.O_RDWR)
        direct = os.open(f"{TOP}/file", os.O_RDWR | os.O_DIRECT)
        fifo = os.open(f"{TOP}/fifo", os.O_RDWR)
        lie("kernel-errno")
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        fails(EIO, os.pread, file, 100, 0)
        fails(EIO, os.pread, direct, 4096, 0)
        fails(EIO, os.pwrite, direct, b"x", 0)
        fails(EIO, os.read, fifo, 10)
        fails(EIO, os.write, fifo, b"x")
        lie("none")
        for fd in (file, direct, fifo):
            os.close(fd)


@case("a directory that claims to be ready for something, and to have contents, is a directory", who=[ROOT], needs=NEEDS)
def polled_directory(_):
    with liar("polled-directory"):
        for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY):
            fd = os.open(f"{TOP}/directory", flags)
            fails(EISDIR, os.read, fd, 100)
            poll = select.poll()
            poll.register(fd)
            poll.poll(0)
            fails(EISDIR, os.pread, fd, 100, 1 << 39)
            eq(len(os.listdir(fd)), 3)
            os.close(fd)


@case("what nobody asked to make was not made: it can't be executed, nor a directory be written", who=[ROOT], needs=NEEDS)
def created(_):
    with liar("created"):
        for name, flags in (("file", os.O_RDONLY), ("file", os.O_RDWR), ("directory", os.O_RDONLY), ("directory", os.O_WRONLY)):
            blames(EPROTO, opened, name, flags)
        for name in ("file", "directory"):
            fails(EPROTO, os.execv, f"{TOP}/{name}", [name])
        blames(EPROTO, opened, "directory", os.O_CREAT | os.O_WRONLY)


@case("a new file without a name is none that has one", who=[ROOT], needs=NEEDS)
def named_tmpfile(_):
    with liar("named-tmpfile"), open(f"{TOP}/file", "rb"):
        fails(EIO, opened, ".", os.O_TMPFILE | os.O_RDWR)
        eq(files.read(f"{TOP}/file"), b"contents")
        eq(os.stat(f"{TOP}/file").st_nlink, 1)


@case("extended attributes are no longer than they may be, and lists of them are lists", who=[ROOT], needs=NEEDS)
def extended(_):
    with liar("huge-xattr"):
        blames(EPROTO, os.getxattr, f"{TOP}/file", "user.abc")
        blames(EPROTO, os.listxattr, f"{TOP}/file")
        for name in ("endless-list", "long-name"):
            lie(name)
            blames(EPROTO, os.listxattr, f"{TOP}/file")


@case("objects without a type, of all types, of too many bytes, and on what is the client's own, do not exist", who=[ROOT], needs=NEEDS)
def impossible(_):
    with liar():
        for name in ("no-type", "every-type", "too-large", "own-device"):
            lie(name)
            blames(EPROTO, os.stat, f"{TOP}/file")
            blames(EPROTO, opened, "file", os.O_RDONLY)
            blames(EPROTO, opened, "new", os.O_CREAT | os.O_RDWR)


@case("entries without a type are names only, and a list that is cut is an error", who=[ROOT], needs=NEEDS)
def listed(_):
    with liar("listed-no-type"):
        eq(sorted(os.listdir(TOP)), ["directory", "fifo", "file"])
        eq(files.read(f"{TOP}/file"), b"contents")
        lie("cut-listing")
        fails(EPROTO, os.listdir, TOP)
        eq(files.read(f"{TOP}/file"), b"contents")


@case("a reply that can't be read is EPROTO, and ends the connection with a line in the log", who=[ROOT], needs=NEEDS)
def cut_body(_):
    with liar("cut-body"):
        kernellog.begin()
        blames(EPROTO, os.stat, f"{TOP}/file")
        said = kernellog.since()
        true(any("the connection is ended: a reply cannot be read" in line for line in said), said)


@case("a server that greets and goes is tried once a second, and fills no log", who=[ROOT], needs=NEEDS)
def greet_and_go(_):
    with liar("greet-and-go", "soft", "timeo=20"):
        fails(ETIMEDOUT, os.stat, f"{TOP}/file")
        time.sleep(patience(3))
        before = counters.reconnects(TOP)
        time.sleep(patience(5))
        # Each lane once a second.
        within(counters.reconnects(TOP) - before, 0, patience(2 * 6), "connections")


@case("data that a server has no memory for is given up after a while: fsync fails with EIO, and sync and umount end", who=[ROOT], needs=NEEDS,
      limit=150, loses=True)
def no_memory(_):
    with liar():
        fd = os.open(f"{TOP}/file", os.O_RDWR)
        lie("no-memory")
        os.pwrite(fd, b"lost", 0)
        sent = counters.read(TOP)
        sync = spawn(os.sync)
        fails(EIO, os.fsync, fd)
        sync.result(60)
        within((counters.read(TOP) - sent).count("WRITE"), 10, 60, "tries")
        os.close(fd)


@case("data that is not written since each session is lost is given up as well", who=[ROOT], needs=NEEDS, limit=150, loses=True, only_full=True)
def lost_sessions(_):
    with liar():
        fd = os.open(f"{TOP}/file", os.O_RDWR)
        lie("lost-session")
        os.pwrite(fd, b"lost", 0)
        fails(EIO, os.fsync, fd)
        os.close(fd)


def look(name):
    """A program that waits."""
    os.stat(f"{TOP}/{name}")


@case("umount of a mount whose server answers nothing any more can be killed, also while HOST is to be told of a watch", who=[ROOT], needs=NEEDS,
      limit=150)
def silence(_):
    with liar():
        watch = Inotify()
        watch.add(f"{TOP}/file")
        lie("silence")
        # Each leaves a request that is never answered.
        lost = [spawn(look, f"name{number}") for number in range(12)]
        time.sleep(patience(1))
        for child in lost:
            child.kill()
        for child in lost:
            true(child.finished(20), "who waits can be killed")
        # The inode leaves memory, so that the thread of the mount has something to say.
        watch.close()
        files.write("/proc/sys/vm/drop_caches", b"2")
        time.sleep(patience(1))
        umount = spawn(syscalls.umount, TOP)
        time.sleep(patience(2))
        umount.kill()
        true(umount.finished(20), "umount can be killed")
        eventually(lambda: not [name for _, name in process.names() if name.startswith("qtfs-")], 20, "the mount has ended")
        filesystems.mount("/made-up", TOP, f"server={HOST_ADDRESS}", f"port={PORT}")
