# SPDX-License-Identifier: GPL-2.0
"""open(2): every flag, what it does and how it fails."""

import fcntl
import mmap
import os
import stat
from errno import EACCES, EBADF, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, EPERM, ESPIPE, ETXTBSY

from qtest import OTHER, ROOT, USER, as_user, case, eq, fails, files, host, missing, run, syscalls, true

CREATE = os.O_CREAT | os.O_RDWR


@case("O_CREAT makes an empty file with the mode that was asked for less the umask")
def create(t):
    os.umask(0o027)
    os.close(os.open("f", CREATE, 0o666))
    status = os.stat("f")
    eq(oct(stat.S_IMODE(status.st_mode)), oct(0o640))
    eq((status.st_size, status.st_nlink, status.st_uid, status.st_gid), (0, 1, t.who.uid, t.who.gid))
    there = host.os.stat(t.there("f"))
    eq((oct(there.st_mode), there.st_uid, there.st_gid), (oct(status.st_mode), t.who.uid, t.who.gid))


@case("a new file may have a mode that forbids what its creator does with it")
def create_read_only(t):
    fd = os.open("f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o000)
    eq(os.write(fd, b"data"), 4)
    os.close(fd)
    eq(os.stat("f").st_size, 4)
    eq(oct(stat.S_IMODE(os.stat("f").st_mode)), oct(0))


@case("O_CREAT opens what exists and leaves its contents and mode alone")
def create_existing(t):
    files.write("f", b"data", 0o600)
    fd = os.open("f", CREATE, 0o777)
    eq(os.read(fd, 10), b"data")
    os.close(fd)
    eq(oct(stat.S_IMODE(os.stat("f").st_mode)), oct(0o600))


@case("O_EXCL fails with EEXIST for a file, a directory and a dangling symlink")
def exclusive(t):
    files.write("f")
    os.mkdir("d")
    os.symlink("nowhere", "l")
    for name in ("f", "d", "l"):
        fails(EEXIST, os.open, name, CREATE | os.O_EXCL)
    host.files.write(t.there("made-there"), b"")
    fails(EEXIST, os.open, "made-there", CREATE | os.O_EXCL)
    os.close(os.open("new", CREATE | os.O_EXCL))


@case("O_CREAT through a dangling symlink makes the file that it names")
def create_through_symlink(t):
    os.symlink("target", "l")
    files.write("l", b"data")
    eq(files.read("target"), b"data")
    eq(os.readlink("l"), "target")


@case("without O_CREAT a name that does not exist is ENOENT, also at the start of a path")
def no_entry(t):
    fails(ENOENT, os.open, "f", os.O_RDONLY)
    fails(ENOENT, os.open, "f", os.O_RDWR)
    fails(ENOENT, os.open, "d/f", CREATE)
    missing("f")


@case("a file in the middle of a path is ENOTDIR")
def not_a_directory(t):
    files.write("f")
    fails(ENOTDIR, os.open, "f/g", os.O_RDONLY)
    fails(ENOTDIR, os.open, "f/g", CREATE)


@case("O_TRUNC empties the file, and sets its times")
def truncate(t):
    files.write("f", b"x" * 10000)
    os.utime("f", (1000, 1000))
    os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
    eq(os.stat("f").st_size, 0)
    true(os.stat("f").st_mtime > 1000, "the modification time is new")
    eq(files.read("f"), b"")
    eq(host.os.stat(t.there("f")).st_size, 0)


@case("O_TRUNC is seen through a file that was open before")
def truncate_seen(t):
    files.write("f", b"x" * 5000)
    fd = os.open("f", os.O_RDONLY)
    eq(len(os.pread(fd, 9999, 0)), 5000)
    os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
    eq(os.pread(fd, 9999, 0), b"")
    os.close(fd)


@case("O_APPEND writes at the end, wherever the offset is")
def append(t):
    files.write("f", b"start")
    fd = os.open("f", os.O_RDWR | os.O_APPEND)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"-1")
    files.append("f", b"-other")
    os.lseek(fd, 1, os.SEEK_SET)
    os.write(fd, b"-2")
    eq(os.lseek(fd, 0, os.SEEK_CUR), 15)
    eq(files.read("f"), b"start-1-other-2")
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"S")
    os.close(fd)
    eq(files.read("f"), b"Start-1-other-2")


@case("O_DIRECTORY opens directories only")
def directory(t):
    files.write("f")
    os.mkdir("d")
    os.symlink("f", "lf")
    os.symlink("d", "ld")
    os.close(os.open("d", os.O_RDONLY | os.O_DIRECTORY))
    os.close(os.open("ld", os.O_RDONLY | os.O_DIRECTORY))
    fails(ENOTDIR, os.open, "f", os.O_RDONLY | os.O_DIRECTORY)
    fails(ENOTDIR, os.open, "lf", os.O_RDONLY | os.O_DIRECTORY)
    fails(ENOENT, os.open, "n", os.O_RDONLY | os.O_DIRECTORY)


@case("O_DIRECTORY follows a symlink that nobody here has looked at yet")
def directory_by_new_symlink(t):
    os.mkdir("d")
    files.write("f")
    for name, target in (("ld", "d"), ("lf", "f"), ("no", "d")):
        host.os.symlink(target, t.there(name))
    eq(os.listdir("ld"), [])
    fails(ENOTDIR, os.open, "lf", os.O_RDONLY | os.O_DIRECTORY)
    fails(ENOTDIR, os.open, "no", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


@case("a directory can't be opened for writing: EISDIR")
def directory_for_writing(t):
    os.mkdir("d")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, CREATE):
        fails(EISDIR, os.open, "d", flags)
    fd = os.open("d", os.O_RDONLY)
    fails(EISDIR, os.read, fd, 10)
    fails((EBADF, EISDIR), os.write, fd, b"x")
    os.close(fd)


@case("O_NOFOLLOW refuses a symlink at the end with ELOOP, not in the middle")
def no_follow(t):
    os.mkdir("d")
    files.write("d/f", b"data")
    os.symlink("d", "ld")
    os.symlink("d/f", "lf")
    fails(ELOOP, os.open, "lf", os.O_RDONLY | os.O_NOFOLLOW)
    fails(ELOOP, os.open, "ld", os.O_RDONLY | os.O_NOFOLLOW)
    fails(ENOTDIR, os.open, "ld", os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    fd = os.open("ld/f", os.O_RDONLY | os.O_NOFOLLOW)
    eq(os.read(fd, 10), b"data")
    os.close(fd)


@case("O_PATH gives a place without opening: stat works, read does not")
def path_only(t):
    files.write("f", b"data")
    os.mkdir("d")
    files.write("d/g", b"below")
    os.symlink("f", "l")
    fd = os.open("f", os.O_PATH)
    eq(os.fstat(fd).st_size, 4)
    fails(EBADF, os.read, fd, 1)
    fails(EBADF, os.fchmod, fd, 0o600)
    eq(files.read(f"/proc/self/fd/{fd}"), b"data")
    os.close(fd)
    fd = os.open("l", os.O_PATH | os.O_NOFOLLOW)
    true(stat.S_ISLNK(os.fstat(fd).st_mode), "O_PATH | O_NOFOLLOW is the symlink itself")
    eq(os.readlink("", dir_fd=fd), "f")
    os.close(fd)
    fd = os.open("d", os.O_PATH)
    inner = os.open("g", os.O_RDONLY, dir_fd=fd)
    eq(os.read(inner, 10), b"below")
    os.close(inner)
    os.close(fd)


@case("O_PATH needs no permission on the file")
def path_without_permission(t):
    files.write("f", b"data", 0o000)
    fd = os.open("f", os.O_PATH)
    eq(os.fstat(fd).st_size, 4)
    os.close(fd)


@case("O_TMPFILE is a file without a name, which linkat can give it later")
def nameless(t):
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    eq(os.fstat(fd).st_nlink, 0)
    eq(oct(stat.S_IMODE(os.fstat(fd).st_mode)), oct(0o640))
    os.write(fd, b"data")
    eq(files.names(), [])
    eq(host.os.listdir(t.host_dir), [])
    syscalls.link_fd(fd, "f")
    eq(os.fstat(fd).st_nlink, 1)
    os.write(fd, b"-more")
    os.close(fd)
    eq(files.read("f"), b"data-more")
    eq(host.files.read(t.there("f")), b"data-more")
    eq(os.stat("f").st_uid, t.who.uid)


@case("O_TMPFILE with O_DIRECT is a file without a name that is written past the page cache")
def tmpfile_direct(t):
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_DIRECT)
    block = mmap.mmap(-1, 4096)
    block.write(b"d" * 4096)
    eq(os.pwrite(fd, block, 0), 4096)
    eq(os.fstat(fd).st_size, 4096)
    os.close(fd)


@case("O_TMPFILE with O_EXCL can't be given a name, and vanishes when closed")
def nameless_for_good(t):
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL)
    os.write(fd, b"data")
    eq(os.pread(fd, 10, 0), b"data")
    fails(ENOENT, syscalls.link_fd, fd, "f")
    os.close(fd)
    eq(files.names(), [])


@case("O_TMPFILE needs O_WRONLY or O_RDWR and a directory that may be written to")
def nameless_errors(t):
    files.write("f")
    fails(EINVAL, os.open, ".", os.O_TMPFILE | os.O_RDONLY)
    fails(ENOTDIR, os.open, "f", os.O_TMPFILE | os.O_RDWR)
    fails(ENOENT, os.open, "n", os.O_TMPFILE | os.O_RDWR)
    os.mkdir("d", 0o755)
    fails(EACCES, as_user, OTHER, os.open, t.path("d"), os.O_TMPFILE | os.O_RDWR)


@case("O_NOATIME leaves the access time alone")
def no_atime(t):
    files.write("f", b"data")
    os.utime("f", (1000, 2000))
    fd = os.open("f", os.O_RDONLY | os.O_NOATIME)
    eq(os.read(fd, 4), b"data")
    os.close(fd)
    eq(os.stat("f").st_atime, 1000)
    eq(host.os.stat(t.there("f")).st_atime, 1000)


@case("O_NOATIME is EPERM for those who do not own the file")
def no_atime_of_others(t):
    files.write("f", b"data", 0o644)
    fails(EPERM, as_user, OTHER, os.open, t.path("f"), os.O_RDONLY | os.O_NOATIME)


@case("O_DIRECT reads and writes aligned blocks around the cache")
def direct(t):
    block = mmap.mmap(-1, 65536)
    block[:] = files.pattern(65536)
    fd = os.open("f", CREATE | os.O_DIRECT)
    eq(os.pwritev(fd, [block], 0), 65536)
    eq(host.files.read(t.there("f")), block[:], "on the host, without fsync or close")
    back = mmap.mmap(-1, 65536)
    eq(os.preadv(fd, [back], 0), 65536)
    eq(back[:], block[:])
    eq(os.preadv(fd, [back], 61440), 4096)
    host.files.write_at(t.there("f"), 4096, b"changed there")
    os.preadv(fd, [back], 4096)
    eq(back[:13], b"changed there")
    os.close(fd)


@case("O_DIRECT and cached writes of the same file see each other")
def direct_and_cached(t):
    block = mmap.mmap(-1, 4096)
    files.write("f", b"a" * 8192)
    direct_fd = os.open("f", os.O_RDWR | os.O_DIRECT)
    cached_fd = os.open("f", os.O_RDWR)
    eq(os.pread(cached_fd, 1, 0), b"a")
    os.pwrite(cached_fd, b"b" * 4096, 0)
    os.preadv(direct_fd, [block], 0)
    eq(block[:], b"b" * 4096)
    block[:] = b"c" * 4096
    os.pwritev(direct_fd, [block], 4096)
    eq(os.pread(cached_fd, 4096, 4096), b"c" * 4096)
    eq(os.pread(cached_fd, 4096, 0), b"b" * 4096)
    os.close(direct_fd)
    os.close(cached_fd)


@case("O_SYNC and O_DSYNC: what write returned is on the host")
def synchronous(t):
    for flag in (os.O_SYNC, os.O_DSYNC):
        fd = os.open("f", CREATE | os.O_TRUNC | flag)
        eq(fcntl.fcntl(fd, fcntl.F_GETFL) & flag, flag)
        os.write(fd, b"first")
        eq(host.files.read(t.there("f")), b"first")
        os.pwrite(fd, b"second", 100)
        eq(host.os.stat(t.there("f")).st_size, 106)
        os.close(fd)


@case("O_CLOEXEC and O_NONBLOCK are kept")
def harmless_flags(t):
    fd = os.open("f", CREATE | os.O_CLOEXEC | os.O_NONBLOCK)
    eq(fcntl.fcntl(fd, fcntl.F_GETFD), fcntl.FD_CLOEXEC)
    true(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK, "O_NONBLOCK is set")
    os.close(fd)


@case("a file opened for one direction refuses the other with EBADF")
def directions(t):
    files.write("f", b"data")
    fd = os.open("f", os.O_RDONLY)
    fails(EBADF, os.write, fd, b"x")
    fails((EBADF, EINVAL), os.ftruncate, fd, 0)
    os.close(fd)
    fd = os.open("f", os.O_WRONLY)
    fails(EBADF, os.read, fd, 1)
    os.close(fd)
    eq(files.read("f"), b"data")


@case("lseek moves the offset; a negative one is EINVAL")
def seek(t):
    files.write("f", b"0123456789")
    fd = os.open("f", os.O_RDONLY)
    eq(os.lseek(fd, 4, os.SEEK_SET), 4)
    eq(os.read(fd, 2), b"45")
    eq(os.lseek(fd, -3, os.SEEK_CUR), 3)
    eq(os.lseek(fd, -1, os.SEEK_END), 9)
    eq(os.read(fd, 5), b"9")
    eq(os.read(fd, 5), b"")
    eq(os.lseek(fd, 1000, os.SEEK_END), 1010)
    eq(os.read(fd, 5), b"")
    fails(EINVAL, os.lseek, fd, -1, os.SEEK_SET)
    fails(EINVAL, os.lseek, fd, 0, 77)
    os.close(fd)
    read_end, _ = os.pipe()
    fails(ESPIPE, os.lseek, read_end, 0, os.SEEK_SET)


@case("two opens of a file have offsets of their own, dup and fork share one")
def offsets(t):
    files.write("f", b"0123456789")
    one, two = os.open("f", os.O_RDONLY), os.open("f", os.O_RDONLY)
    os.read(one, 3)
    eq(os.read(two, 2), b"01")
    eq(os.read(os.dup(one), 2), b"34")
    if not (pid := os.fork()):
        os.read(one, 2)
        os._exit(0)
    os.waitpid(pid, 0)
    eq(os.read(one, 2), b"78")


@case("opening needs the permission for the direction: EACCES", who=[USER])
def permission(t):
    files.write("f", b"data", 0o200)
    fails(EACCES, os.open, "f", os.O_RDONLY)
    fails(EACCES, os.open, "f", os.O_RDWR)
    os.close(os.open("f", os.O_WRONLY))
    os.chmod("f", 0o400)
    fails(EACCES, os.open, "f", os.O_WRONLY)
    fails(EACCES, os.open, "f", os.O_RDONLY | os.O_TRUNC)
    os.close(os.open("f", os.O_RDONLY))
    os.mkdir("d", 0o500)
    fails(EACCES, os.open, "d/new", CREATE)
    eq(files.read("f"), b"data")


@case("a program can be run from there, and not written to meanwhile: ETXTBSY")
def execute(t):
    files.write("program", files.read("/bin/sleep"), 0o755)
    os.chmod("program", 0o755)
    child = os.posix_spawn("./program", ["./program", "100"], {})
    fails(ETXTBSY, os.open, "program", os.O_WRONLY)
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(os.open("program", os.O_WRONLY))


@case("a script can be run from there")
def script(t):
    files.write("s", b"#!/bin/sh\necho it runs\n")
    fails(EACCES, run, ["./s"])
    os.chmod("s", 0o755)
    eq(run(["./s"]).text, "it runs")


@case("fsync, fdatasync and sync_file_range bring data to the host")
def sync(t):
    fd = os.open("f", CREATE)
    os.write(fd, b"one")
    os.fsync(fd)
    eq(host.files.read(t.there("f")), b"one")
    os.write(fd, b"two")
    os.fdatasync(fd)
    eq(host.files.read(t.there("f")), b"onetwo")
    os.close(fd)
    fd = os.open(".", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


@case("a file that was closed is complete on the host", who=[ROOT])
def close_flushes(t):
    data = files.pattern(300000)
    files.write("f", data)
    eq(host.files.digest(t.there("f")), files.digest("f"))
    eq(host.os.stat(t.there("f")).st_size, 300000)
