# SPDX-License-Identifier: GPL-2.0
"""Files and directories that are open and have lost their names."""

import mmap
import os
import stat
from errno import ENOENT, ENOTEMPTY, ESTALE

from qtest import ROOT, case, eq, eventually, fails, files, host, missing, same_bytes, spawn, syscalls, true


@case("an unlinked file that is open can be read, written, truncated, synced and stat'ed")
def unlinked(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"before")
    os.unlink("f")
    missing("f")
    eq(files.names(), [])
    eq(os.pread(fd, 10, 0), b"before")
    os.pwrite(fd, b"after-", 6)
    os.fsync(fd)
    eq(os.fstat(fd).st_nlink, 0)
    eq(os.fstat(fd).st_size, 12)
    os.ftruncate(fd, 3)
    os.fchmod(fd, 0o600)
    os.utime(fd, (5, 6))
    eq((os.fstat(fd).st_size, oct(stat.S_IMODE(os.fstat(fd).st_mode)), os.fstat(fd).st_mtime), (3, oct(0o600), 6))
    os.close(fd)


@case("nothing is left behind on the host, neither then nor after the close")
def nothing_left(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"data")
    os.unlink("f")
    eq(host.files.names(t.host_dir), [])
    os.close(fd)
    eq(host.files.names(t.host_dir), [])
    os.mkdir("d")
    fd = os.open("d/f", os.O_CREAT | os.O_RDWR)
    os.unlink("d/f")
    os.rmdir("d")
    os.close(fd)


@case("the space is given back when the last open ends", who=[ROOT], needs="two")
def space(t):
    os.mkdir("m")
    host.run(["mount", "-t", "tmpfs", "-o", "size=20M", "tmpfs", t.there("m")])
    try:
        fd = os.open("m/f", os.O_CREAT | os.O_RDWR)
        os.write(fd, b"x" * (4 << 20))
        os.fsync(fd)
        os.unlink("m/f")
        used = host.os.statvfs(t.there("m"))
        true(used.f_blocks - used.f_bfree >= 1024, "still used")
        os.close(fd)

        def free():
            now = host.os.statvfs(t.there("m"))
            return now.f_blocks - now.f_bfree < 10

        eventually(free, 15, "the space is free after the close")
    finally:
        host.run(["umount", "-l", t.there("m")])


@case("a file that the host unlinks stays usable for who has it open here")
def unlinked_there(t):
    files.write("f", b"data" * 5000)
    fd = os.open("f", os.O_RDWR)
    host.os.unlink(t.there("f"))
    missing("f")
    same_bytes(os.pread(fd, 30000, 0), b"data" * 5000)
    os.pwrite(fd, b"more", 20000)
    os.fsync(fd)
    eq(os.fstat(fd).st_size, 20004)
    eq(os.fstat(fd).st_nlink, 0)
    os.close(fd)


@case("a file that the host replaces by rename stays what it was for who has it open")
def replaced_there(t):
    files.write("f", b"old")
    fd = os.open("f", os.O_RDWR)
    host.files.write(t.there("new"), b"new")
    host.os.rename(t.there("new"), t.there("f"))
    eq(files.read("f"), b"new")
    eq(os.pread(fd, 10, 0), b"old")
    os.pwrite(fd, b"OLD", 0)
    os.fsync(fd)
    eq(files.read("f"), b"new")
    os.close(fd)


@case("a mapping of an unlinked file goes on")
def mapped(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, bytes(8192))
    memory = mmap.mmap(fd, 8192)
    os.unlink("f")
    os.close(fd)
    memory[5000:5004] = b"data"
    memory.flush()
    eq(memory[5000:5004], b"data")
    memory.close()


@case("the same name can be made again while the old file is open")
def again(t):
    held = []
    for number in range(10):
        fd = os.open("f", os.O_CREAT | os.O_EXCL | os.O_RDWR)
        os.write(fd, b"%d" % number)
        os.unlink("f")
        held.append(fd)
    files.write("f", b"last")
    for number, fd in enumerate(held):
        eq(os.pread(fd, 10, 0), b"%d" % number)
        os.close(fd)
    eq(files.read("f"), b"last")


@case("an unlinked file can't be linked again by its descriptor: ENOENT", who=[ROOT])
def link_again(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.unlink("f")
    fails(ENOENT, syscalls.link_fd, fd, "g")
    os.close(fd)


@case("a child that inherited an unlinked file writes to it")
def inherited(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.unlink("f")
    spawn(os.write, fd, b"child").result()
    eq(os.pread(fd, 10, 0), b"child")
    os.close(fd)


@case("a removed directory that is open or current has no entries and takes none: ENOENT")
def removed_directory(t):
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    os.chdir("d")
    os.rmdir(t.path("d"))
    fails(ENOENT, os.open, "f", os.O_CREAT | os.O_WRONLY)
    fails(ENOENT, os.mkdir, "e")
    fails(ENOENT, os.stat, "f")
    eq(os.listdir(fd), [])
    eq(os.fstat(fd).st_nlink, 0)
    fails(ENOENT, os.getcwd)
    os.chdir(t.dir)
    os.close(fd)


@case("a directory that the host removes: open here, its names are gone", needs="posix")
def removed_there(t):
    os.mkdir("d")
    files.write("d/f")
    fd = os.open("d", os.O_RDONLY)
    os.chdir("d")
    host.files.remove_tree(t.there("d"))
    fails((ENOENT, ESTALE), os.stat, "f")
    fails((ENOENT, ESTALE), os.open, "g", os.O_CREAT | os.O_WRONLY)
    fails((ENOENT, ESTALE), os.mkdir, "e")
    os.chdir(t.dir)
    missing("d")
    os.close(fd)
    os.mkdir("d")
    eq(files.names("d"), [])


@case("rmdir of a directory in which an unlinked file is open works", who=[ROOT])
def rmdir_with_open(t):
    os.mkdir("d")
    fd = os.open("d/f", os.O_CREAT | os.O_RDWR)
    fails(ENOTEMPTY, os.rmdir, "d")
    os.unlink("d/f")
    os.rmdir("d")
    os.write(fd, b"data")
    eq(os.pread(fd, 10, 0), b"data")
    os.close(fd)


@case("a hundred unlinked files at once", who=[ROOT])
def many(t):
    held = []
    for number in range(100):
        fd = os.open(f"f{number}", os.O_CREAT | os.O_RDWR)
        os.write(fd, b"%d" % number * 100)
        os.unlink(f"f{number}")
        held.append(fd)
    eq(host.files.names(t.host_dir), [])
    for number, fd in enumerate(held):
        eq(os.pread(fd, 10000, 0), b"%d" % number * 100)
        os.close(fd)
