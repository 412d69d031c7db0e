# SPDX-License-Identifier: GPL-2.0
"""The server's module forgets a client: what cannot be known is told, and never guessed."""

import fcntl
import os
from errno import EIO

from qtest import ROOT, case, counters, eq, eventually, fails, files, host, lab, on_host, server, spawn, syscalls, true
from qtest.syscalls import RENAME_EXCHANGE, rename2

NEEDS = "qtfs"


@on_host
def engine_goes():
    """From here on requests wait; they are with the module already."""
    server.stop_engine()


@on_host
def server_is_loaded_anew():
    """The module forgets all, those requests too."""
    server.unload()
    server.start()


def while_forgotten(function, *arguments):
    """What a child says whose request is with a server that forgets it before it is executed."""
    engine_goes()
    child = spawn(function, *arguments)
    true(child.sleeps(20), "the request waits")
    server_is_loaded_anew()
    return child


@case("mkdir that was sent before the session was lost is made once", who=[ROOT], needs=NEEDS, limit=120)
def mkdir(t):
    while_forgotten(os.mkdir, t.path("d")).result(60)
    eq(host.os.listdir(t.host_dir), ["d"])


@case("exchanging two names is not repeated: EIO, and the names are as they were or exchanged", who=[ROOT], needs=NEEDS, limit=120)
def exchange(t):
    files.write("a", b"a")
    files.write("b", b"b")
    child = while_forgotten(fails, EIO, rename2, t.path("a"), t.path("b"), RENAME_EXCHANGE)
    child.result(60)
    eq(sorted(host.files.read(t.there(name)) for name in "ab"), [b"a", b"b"])


@case("a lock that HOST has lost makes its file fail until it is unlocked", who=[ROOT], needs=NEEDS, limit=120)
def lock_lost(t):
    files.write("f", b"data")
    fd = os.open("f", os.O_RDWR)
    other = os.open("f", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    engine_goes()
    server_is_loaded_anew()
    fails(EIO, os.pread, fd, 4, 0)
    eq(os.pread(other, 4, 0), b"data")
    fcntl.flock(fd, fcntl.LOCK_UN)
    eq(os.pread(fd, 4, 0), b"data")
    fcntl.flock(fd, fcntl.LOCK_EX)
    eq(host.syscalls.try_flock(t.there("f"), fcntl.LOCK_EX), False)
    os.close(fd)
    os.close(other)


@case("whose POSIX lock is lost is what counts: a child that closes the file releases none, the owner that closes it once more all",
      who=[ROOT], needs=NEEDS, limit=120)
def posix_lock_lost(t):
    files.write("f", b"x" * 10)
    held, released = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    # The child's close(2) is an unlock of the child's locks, of which there are none.
    fcntl.lockf(held, fcntl.LOCK_EX, 10)
    spawn(os.close, held).result(10)
    engine_goes()
    server_is_loaded_anew()
    fails(EIO, os.pread, held, 10, 0)
    # Closing any descriptor of the file drops the locks that the process holds through others.
    os.close(released)
    eq(os.pread(held, 10, 0), b"x" * 10)
    fcntl.lockf(held, fcntl.LOCK_EX, 10)
    os.close(os.open("f", os.O_RDWR))
    engine_goes()
    server_is_loaded_anew()
    eq(os.pread(held, 10, 0), b"x" * 10)
    os.close(held)


@case("a waiter that is killed while the link is cut does not get the lock afterwards", who=[ROOT], needs=NEEDS, limit=120)
def ghost(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    there = host.background.open_file(t.there("f"))
    host.fcntl.flock(there, fcntl.LOCK_EX)
    # The child shares the open file, so its end alone does not close it.
    waiter = spawn(fcntl.flock, fd, fcntl.LOCK_EX)
    true(waiter.sleeps(10), "the child waits")
    lab.link("down")
    waiter.kill()
    true(waiter.finished(10), "it can be killed")
    host.background.close_file(there)
    lab.link("up")
    eventually(lambda: host.syscalls.try_flock(t.there("f"), fcntl.LOCK_EX), 60, "nobody has the lock")
    os.close(fd)


@case("fsync and syncfs after HOST lost power tell of data that was not on its disk, once", who=[ROOT], needs=NEEDS, limit=240)
def power_lost(t):
    files.write("f", b"synced")
    fd = os.open("f", os.O_RDWR)
    os.fsync(fd)
    host.run("sync")
    written = os.open("f", os.O_WRONLY)
    os.pwrite(written, b"lost?", 0)
    # It is acknowledged, and nobody has asked for more.
    os.close(written)
    lab.crash("host")
    lab.boot("host")
    host.server.start()
    fails(EIO, os.fsync, fd)
    os.fsync(fd)
    os.pwrite(fd, b"again", 0)
    os.fsync(fd)
    eq(host.files.read(t.there("f"))[:5], b"again")
    # Who only asks for everything to be written hears of nothing, and takes nothing from who asks more.
    os.sync()
    fails(EIO, syscalls.syncfs, fd)
    syscalls.syncfs(fd)
    os.close(fd)


@case("what syncfs or fsync has put on the disk is not told as lost after HOST lost power", who=[ROOT], needs=NEEDS, limit=240)
def power_lost_later(t):
    kept = {}
    for name in ("by-syncfs", "by-fsync", "twice"):
        kept[name] = os.open(name, os.O_RDWR | os.O_CREAT)
        os.pwrite(kept[name], b"first", 0)
    os.fsync(kept["by-fsync"])
    syscalls.syncfs(kept["twice"])
    os.pwrite(kept["twice"], b"again", 0)
    # It is acknowledged; the kernel that was told to write it back has done so.
    os.posix_fadvise(kept["twice"], 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(os.open("twice", os.O_WRONLY))
    lab.crash("host")
    lab.boot("host")
    host.server.start()
    os.fsync(kept["by-syncfs"])
    os.fsync(kept["by-fsync"])
    fails(EIO, os.fsync, kept["twice"])
    os.fsync(kept["twice"])
    for name, text in (("by-syncfs", b"first"), ("by-fsync", b"first")):
        eq(host.files.read(t.there(name)), text)
    fails(EIO, syscalls.syncfs, kept["twice"])
    syscalls.syncfs(kept["twice"])
    for fd in kept.values():
        os.close(fd)


def write_anew(data):
    """Writes to a file; it is on the host, and nobody has asked for more."""
    fd = os.open("f", os.O_WRONLY)
    os.pwrite(fd, data, 0)
    os.close(fd)


@case("what is written while syncfs is on its way is told as lost after HOST lost power", who=[ROOT], needs=NEEDS, limit=240)
def power_lost_after_syncfs(t):
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    write_anew(b"first")
    # So that there is something to do.
    large = t.there("large")
    host.run(["dd", "if=/dev/zero", f"of={large}", "bs=1M", "count=64", "status=none"])
    child = spawn(syscalls.syncfs, fd)
    eventually(lambda: counters.in_flight(t.fs.mnt) > 0 or not child.alive(), 20, "it is on its way")
    write_anew(b"again")
    t.note(f"syncfs was still on its way: {child.alive()}")
    child.result(60)
    host.os.unlink(large)
    lab.crash("host")
    lab.boot("host")
    host.server.start()
    fails(EIO, os.fsync, fd)
    os.fsync(fd)
    fails(EIO, syscalls.syncfs, fd)
    syscalls.syncfs(fd)
    os.close(fd)


@case("a directory that is open or someone's cwd is the same after HOST lost power", who=[ROOT], needs=NEEDS, limit=240)
def same_directory(t):
    os.makedirs("d/e")
    files.write("d/f", b"data")
    host.run("sync")
    fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir("d")
    before = os.stat(".")
    lab.crash("host")
    lab.boot("host")
    host.server.start()
    again = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for after in (os.stat("."), os.fstat(fd), os.fstat(again), os.stat(t.path("d"))):
        eq((after.st_dev, after.st_ino), (before.st_dev, before.st_ino))
    eq(os.getcwd(), t.path("d"))
    for directory in (".", fd, again):
        eq(sorted(os.listdir(directory)), ["e", "f"])
    os.mkdir("new")
    eq(sorted(os.listdir(t.path("d"))), ["e", "f", "new"])
    os.close(again)
    os.close(fd)
    os.chdir(t.dir)


@case("loading the server's module anew is no loss of power: fsync succeeds", who=[ROOT], needs=NEEDS, limit=120)
def module_only(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    os.write(fd, b"data")
    engine_goes()
    server_is_loaded_anew()
    os.fsync(fd)
    eq(host.files.read(t.there("f")), b"data")
    os.close(fd)
