# SPDX-License-Identifier: GPL-2.0
"""What stat(2) and statx(2) say, and setting times."""

import mmap
import os
import signal
import stat
import time
from errno import EACCES, ENOENT, EPERM

from qtest import OTHER, ROOT, USER, as_user, case, eq, eventually, fails, files, host, on_host, run, spawn, syscalls, true, within

FIELDS = ["st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks",
          "st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_rdev"]


@on_host
def mount_tmpfs(path, text):
    os.makedirs(path, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "size=10M", "tmpfs", path])
    files.write(os.path.join(path, "inner"), text)


@on_host
def make_one_of_each(top):
    files.write(f"{top}/file", b"x" * 10000)
    os.mkdir(f"{top}/dir")
    os.mkdir(f"{top}/dir/sub")
    os.symlink("dir", f"{top}/link")
    os.mkfifo(f"{top}/fifo")
    os.mknod(f"{top}/node", stat.S_IFBLK | 0o640, os.makedev(259, 70000))
    os.link(f"{top}/file", f"{top}/hard")


@case("every field of stat is the host's: inode, mode, links, owner, size, blocks, times, device")
def fields(t):
    make_one_of_each(t.host_dir)
    for name in ("file", "dir", "dir/sub", "link", "fifo", "node", "hard", "."):
        here, there = os.lstat(name), host.os.lstat(t.there(name))
        for field in FIELDS:
            eq(getattr(here, field), getattr(there, field), f"{field} of {name}")


@case("fstat of an open file says the same as stat of its name")
def fstat(t):
    files.write("f", b"data")
    fd = os.open("f", os.O_RDWR)
    os.write(fd, b"longer data")
    by_fd, by_name = os.fstat(fd), os.stat("f")
    for field in FIELDS:
        eq(getattr(by_fd, field), getattr(by_name, field), field)
    os.close(fd)


@case("all names of a hard link have one inode number, different files have different ones")
def inode_numbers(t):
    files.write("a")
    files.write("b")
    os.link("a", "a2")
    eq(os.stat("a").st_ino, os.stat("a2").st_ino)
    true(os.stat("a").st_ino != os.stat("b").st_ino, "a and b have different inode numbers")
    number = os.stat("a").st_ino
    os.rename("a", "c")
    eq(os.stat("c").st_ino, number)
    eq(os.path.samefile("c", "a2"), True)


@case("each file system of the host has a device number of its own here", who=[ROOT], needs="two")
def devices(t):
    os.mkdir("plain")
    mount_tmpfs(t.there("mounted"), b"1")
    mount_tmpfs(t.there("mounted/deeper"), b"2")
    try:
        plain, top = os.stat("plain"), os.stat(".")
        mounted, inner, deeper = os.stat("mounted"), os.stat("mounted/inner"), os.stat("mounted/deeper")
        eq(plain.st_dev, top.st_dev)
        eq(inner.st_dev, mounted.st_dev)
        eq(len({top.st_dev, mounted.st_dev, deeper.st_dev}), 3, "different devices")
        eq(os.path.ismount("mounted"), True)
        eq(os.path.ismount("plain"), False)
        eq(run(["find", ".", "-xdev", "-name", "inner"]).text, "")
        eq(run(["find", ".", "-name", "inner"]).text.count("inner"), 2)
        eq(inner.st_ino, host.os.stat(t.there("mounted/inner")).st_ino)
        eq(files.read("mounted/inner"), b"1")
        eq(files.read("mounted/deeper/inner"), b"2")
    finally:
        host.server.umount("-R", t.there("mounted"))


@case("statx has the birth time and the other fields of stat")
def birth_time(t):
    before = time.time() - 100
    files.write("f", b"data")
    found, there = syscalls.statx("f"), host.call(__file__, "statx_there", t.there("f"))
    true(found.mask & syscalls.STATX_BTIME, "the mask says that there is a birth time")
    eq((found.btime, found.ino, found.size, found.blocks), there)
    within(found.btime[0], before, time.time() + 100)
    os.utime("f", (5, 5))
    eq(syscalls.statx("f").btime, found.btime, "birth time after utime")


def statx_there(path):
    found = syscalls.statx(path)
    return (found.btime, found.ino, found.size, found.blocks)


@case("statx of a descriptor works, also of one opened with O_PATH")
def statx_of_descriptor(t):
    files.write("f", b"data")
    for flags in (os.O_RDONLY, os.O_PATH):
        fd = os.open("f", flags)
        eq(syscalls.statx(fd).size, 4)
        os.close(fd)


@case("statx knows immutable and append-only files", who=[ROOT])
def statx_attributes(t):
    files.write("f", b"data")
    host.run(["chattr", "+i", t.there("f")])
    try:
        found = syscalls.statx("f")
        true(found.attributes & found.attributes_mask & 0x10, "STATX_ATTR_IMMUTABLE is set")
        fails(EPERM, os.open, "f", os.O_WRONLY)
        fails(EPERM, os.unlink, "f")
        fails(EPERM, os.chmod, "f", 0o600)
    finally:
        host.run(["chattr", "-i", t.there("f")])
    os.unlink("f")


@case("lsattr and chattr work here too", who=[ROOT])
def inode_flags(t):
    files.write("f", b"data")
    syscalls.set_inode_flags("f", syscalls.inode_flags("f") | syscalls.FS_APPEND_FL)
    true("a" in host.run(["lsattr", t.there("f")]).text.split()[0], "the host sees it")
    try:
        fails(EPERM, os.open, "f", os.O_WRONLY)
        files.append("f", b"-more")
    finally:
        syscalls.set_inode_flags("f", syscalls.inode_flags("f") & ~syscalls.FS_APPEND_FL)
    eq(files.read("f"), b"data-more")


@case("what was written before a file becomes immutable is not lost", who=[ROOT])
def written_before(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"written before")
    syscalls.set_inode_flags("f", syscalls.inode_flags("f") | syscalls.FS_IMMUTABLE_FL)
    try:
        os.fsync(fd)
        eq(host.files.read(t.there("f")), b"written before")
    finally:
        syscalls.set_inode_flags("f", syscalls.inode_flags("f") & ~syscalls.FS_IMMUTABLE_FL)
    os.close(fd)


def writes(mapping):
    """Writes to a page."""
    mapping[0] = ord("x")


@case("a file that has become immutable is not written to any more: EPERM, SIGBUS in a mapping", who=[ROOT])
def written_after(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, bytes(4096))
    mapping = mmap.mmap(fd, 4096)
    mapping[1] = ord("y")
    syscalls.set_inode_flags("f", syscalls.inode_flags("f") | syscalls.FS_IMMUTABLE_FL)
    try:
        fails(EPERM, os.write, fd, b"x")
        child = spawn(writes, mapping)
        true(child.finished(30), "the child has ended")
        eq(child.died_of(), signal.SIGBUS)
        os.fsync(fd)
        eq(host.files.read(t.there("f"))[:3], b"\0y\0")
    finally:
        syscalls.set_inode_flags("f", syscalls.inode_flags("f") & ~syscalls.FS_IMMUTABLE_FL)
    writes(mapping)
    mapping.flush()
    eq(host.files.read(t.there("f"))[:3], b"xy\0")
    os.close(fd)


@case("once the host has made a file mutable again, it is written to at once", who=[ROOT])
def mutable_again(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, bytes(4096))
    mapping = mmap.mmap(fd, 4096)
    syscalls.set_inode_flags("f", syscalls.inode_flags("f") | syscalls.FS_IMMUTABLE_FL)
    host.run(["chattr", "-i", t.there("f")])
    writes(mapping)
    os.pwrite(fd, b"z", 1)
    os.fsync(fd)
    eq(host.files.read(t.there("f"))[:3], b"xz\0")
    os.close(fd)


@case("times have nanoseconds, in both directions, also before 1970")
def nanoseconds(t):
    files.write("f")
    for atime, mtime in ((1, 999_999_999), (1_600_000_000_123_456_789, 1_700_000_000_987_654_321), (-1_500_000_000, -1)):
        os.utime("f", ns=(atime, mtime))
        found = os.stat("f")
        eq((found.st_atime_ns, found.st_mtime_ns), (atime, mtime))
        there = host.os.stat(t.there("f"))
        eq((there.st_atime_ns, there.st_mtime_ns), (atime, mtime))
    host.os.utime(t.there("f"), ns=(123, 456))
    found = os.stat("f")
    eq((found.st_atime_ns, found.st_mtime_ns), (123, 456))


@case("utimensat sets one time, both, now, or a symlink's own")
def setting_times(t):
    files.write("f")
    os.utime("f", (1000, 2000))
    run(["touch", "-a", "-d", "@3000", "f"])
    eq((os.stat("f").st_atime, os.stat("f").st_mtime), (3000, 2000))
    run(["touch", "-m", "-d", "@4000", "f"])
    eq((os.stat("f").st_atime, os.stat("f").st_mtime), (3000, 4000))
    os.utime("f")
    now = host.time.time()
    within(os.stat("f").st_mtime, now - 60, now + 60, "now is the host's")
    os.symlink("f", "l")
    os.utime("l", (7, 8), follow_symlinks=False)
    eq((os.lstat("l").st_atime, os.lstat("l").st_mtime), (7, 8))
    true(os.stat("f").st_mtime > 4000, "the file behind the symlink is not touched")


@case("times far in the future are kept as the host keeps them")
def far_times(t):
    files.write("f")
    for seconds in (2**31 - 1, 2**31, 2**32 + 5, 2**33 + 7):
        os.utime("f", (seconds, seconds))
        eq(os.stat("f").st_mtime, host.os.stat(t.there("f")).st_mtime)
        eq(int(os.stat("f").st_mtime), seconds)


@case("writing, chmod and link change the times that they should")
def times_that_change(t):
    files.write("f", b"data")

    def changed(action):
        os.utime("f", (1000, 1000))
        before = os.stat("f")
        # File systems take their times from the clock that only ticks, CLOCK_REALTIME_COARSE.
        eventually(lambda: host.time.clock_gettime_ns(5) > before.st_ctime_ns, what="the host's clock ticks")
        action()
        after = os.stat("f")
        return (after.st_mtime_ns != before.st_mtime_ns, after.st_ctime_ns != before.st_ctime_ns)

    eq(changed(lambda: files.append("f", b"more")), (True, True), "append")
    eq(changed(lambda: os.chmod("f", 0o640)), (False, True), "chmod")
    eq(changed(lambda: os.link("f", "g")), (False, True), "link")
    eq(changed(lambda: os.unlink("g")), (False, True), "unlink")
    eq(changed(lambda: os.truncate("f", 1)), (True, True), "truncate")
    fd = os.open("f", os.O_WRONLY)
    eq(changed(lambda: os.ftruncate(fd, 1)), (True, True), "ftruncate to the same size")
    os.close(fd)
    eq(changed(lambda: os.rename("f", "h") or os.rename("h", "f")), (False, True), "rename")


@case("making and removing names changes the directory's times and link count")
def directory_times(t):
    os.mkdir("d")

    def changed(action):
        os.utime("d", (1000, 1000))
        action()
        return os.stat("d").st_mtime != 1000

    eq(changed(lambda: files.write("d/f")), True, "create")
    eq(changed(lambda: os.mkdir("d/s")), True, "mkdir")
    eq(os.stat("d").st_nlink, 3)
    eq(changed(lambda: os.unlink("d/f")), True, "unlink")
    eq(changed(lambda: os.rmdir("d/s")), True, "rmdir")
    eq(os.stat("d").st_nlink, 2)


@case("stat of what does not exist is ENOENT, also below a directory that does not")
def nothing_there(t):
    fails(ENOENT, os.stat, "n")
    fails(ENOENT, os.lstat, "n")
    fails(ENOENT, os.stat, "n/m")


@case("only the owner sets times freely, those who may write set them to now", who=[USER])
def who_sets_times(t):
    files.write("f")
    os.chmod("f", 0o666)
    fails(EPERM, as_user, OTHER, os.utime, t.path("f"), (1, 1))
    as_user(OTHER, os.utime, t.path("f"))
    os.chmod("f", 0o644)
    fails(EACCES, as_user, OTHER, os.utime, t.path("f"))


@case("st_blocks is what the host has allocated, so du works")
def blocks(t):
    files.write("full", files.pattern(1 << 20))
    fd = os.open("sparse", os.O_CREAT | os.O_WRONLY)
    os.ftruncate(fd, 1 << 30)
    os.close(fd)
    host.run("sync")
    for name in ("full", "sparse"):
        eq(os.stat(name).st_blocks, host.os.stat(t.there(name)).st_blocks, name)
    true(os.stat("sparse").st_blocks < 100, "a hole takes no blocks")
