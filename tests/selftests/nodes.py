# SPDX-License-Identifier: GPL-2.0
"""Device nodes, whiteouts, FIFOs and sockets as names in a directory."""

import os
import stat
from errno import EEXIST, EINVAL, ENOENT, ENOTDIR, EPERM

from qtest import ROOT, USER, case, eq, fails, files, host, run, syscalls, true


@case("mkfifo makes a fifo with the mode less the umask")
def fifo(t):
    os.umask(0o022)
    os.mkfifo("p", 0o666)
    status = os.stat("p")
    eq(oct(status.st_mode), oct(stat.S_IFIFO | 0o644))
    eq((status.st_uid, status.st_nlink, status.st_size), (t.who.uid, 1, 0))
    eq(oct(host.os.stat(t.there("p")).st_mode), oct(status.st_mode))


@case("mknod makes sockets and regular files too")
def socket_and_file(t):
    os.mknod("s", stat.S_IFSOCK | 0o600)
    os.mknod("f", stat.S_IFREG | 0o640)
    os.mknod("g", 0o600)
    eq(oct(os.stat("s").st_mode), oct(stat.S_IFSOCK | 0o600))
    eq(oct(os.stat("f").st_mode), oct(stat.S_IFREG | 0o640))
    true(stat.S_ISREG(host.os.stat(t.there("g")).st_mode), "mknod without a type makes a regular file")
    files.write("f", b"data")
    eq(files.read("f"), b"data")


@case("device nodes keep their kind, major and minor number", who=[ROOT])
def devices(t):
    wanted = {"null": (stat.S_IFCHR, 1, 3), "disk": (stat.S_IFBLK, 8, 1), "big": (stat.S_IFBLK, 259, 1048575),
              "bigger": (stat.S_IFCHR, 4095, 70000), "zero": (stat.S_IFBLK, 0, 0)}
    for name, (kind, major, minor) in wanted.items():
        os.mknod(name, kind | 0o600, os.makedev(major, minor))
    for name, (kind, major, minor) in wanted.items():
        for status in (os.lstat(name), host.os.lstat(t.there(name))):
            eq((stat.S_IFMT(status.st_mode), os.major(status.st_rdev), os.minor(status.st_rdev)), (kind, major, minor), name)


@case("a device node opens the device of this machine", who=[ROOT])
def open_device(t):
    os.mknod("null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    fd = os.open("null", os.O_RDWR)
    eq((os.read(fd, 10), os.write(fd, b"data")), (b"", 4))
    eq(os.fstat(fd).st_rdev, os.makedev(1, 3))
    os.close(fd)
    os.mknod("none", stat.S_IFCHR | 0o600, os.makedev(4000, 1))
    fails((6, 19), os.open, "none", os.O_RDONLY)


@case("a whiteout is a 0,0 character device that anyone who may write there can make")
def whiteout(t):
    os.mknod("w", stat.S_IFCHR, 0)
    status = os.lstat("w")
    eq((stat.S_ISCHR(status.st_mode), status.st_rdev), (True, 0))
    there = host.os.lstat(t.there("w"))
    eq((stat.S_ISCHR(there.st_mode), there.st_rdev), (True, 0))
    os.unlink("w")


@case("whiteouts that the host's overlay makes are seen as such", who=[ROOT])
def whiteout_there(t):
    host.os.mknod(t.there("w"), stat.S_IFCHR, 0)
    eq(os.lstat("w").st_rdev, 0)
    true(stat.S_ISCHR(os.lstat("w").st_mode), "character device")


@case("an ordinary user makes no device nodes: EPERM", who=[USER])
def devices_forbidden(t):
    fails(EPERM, os.mknod, "n", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    fails(EPERM, os.mknod, "n", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    eq(files.names(), [])


@case("mknod of a name that exists is EEXIST; of a directory or a symlink it is refused")
def errors(t):
    files.write("f")
    fails(EEXIST, os.mkfifo, "f")
    fails(EEXIST, os.mknod, "f", stat.S_IFSOCK | 0o600)
    fails((EPERM, EINVAL), os.mknod, "d", stat.S_IFDIR | 0o755)
    fails((EPERM, EINVAL), os.mknod, "l", stat.S_IFLNK | 0o755)
    fails(ENOTDIR, os.mkfifo, "f/p")
    fails(ENOENT, os.mkfifo, "n/p")


@case("rename, link, chmod, chown and utime work on nodes", who=[ROOT])
def treat_as_any(t):
    os.mkfifo("p")
    os.rename("p", "q")
    os.chmod("q", 0o600)
    os.chown("q", 1001, 1001)
    os.utime("q", (5, 6))
    status = host.os.stat(t.there("q"))
    eq((oct(status.st_mode), status.st_uid, status.st_mtime), (oct(stat.S_IFIFO | 0o600), 1001, 6))


@case("directory entries say what kind they are: d_type")
def kinds(t):
    files.write("file")
    os.mkdir("dir")
    os.symlink("x", "link")
    os.mkfifo("fifo")
    os.mknod("socket", stat.S_IFSOCK | 0o600)
    os.mknod("char", stat.S_IFCHR, 0)
    stream = syscalls.Dir(".")
    found = {name: kind for name, _, kind in stream.rest()}
    stream.close()
    eq(found, {b".": 4, b"..": 4, b"file": 8, b"dir": 4, b"link": 10, b"fifo": 1, b"socket": 12, b"char": 2})


@case("cp -a and tar carry nodes over", who=[ROOT])
def archive(t):
    os.mkdir("a")
    os.mknod("a/n", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mkfifo("a/p")
    os.symlink("text", "a/l")
    run("cp -a a b && tar -C a -cf t.tar . && mkdir c && tar -C c -xpf t.tar")
    for copy in ("b", "c"):
        eq(os.lstat(f"{copy}/n").st_rdev, os.makedev(1, 3))
        true(stat.S_ISFIFO(os.lstat(f"{copy}/p").st_mode), "fifo")
        eq(os.readlink(f"{copy}/l"), "text")
