# SPDX-License-Identifier: GPL-2.0
"""Hard links and symlinks."""

import os
import stat
from errno import EACCES, EEXIST, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM

from qtest import OTHER, ROOT, USER, as_user, case, eq, fails, files, host, missing, syscalls, true


@case("link gives a file a second name: same inode, same contents, link count 2")
def link(t):
    files.write("a", b"data")
    os.link("a", "b")
    eq(os.stat("a").st_ino, os.stat("b").st_ino)
    eq((os.stat("a").st_nlink, os.stat("b").st_nlink), (2, 2))
    files.append("b", b"-more")
    eq(files.read("a"), b"data-more")
    os.chmod("a", 0o600)
    eq(oct(stat.S_IMODE(os.stat("b").st_mode)), oct(0o600))
    eq(host.os.stat(t.there("b")).st_nlink, 2)


@case("a link made or removed on the host changes the link count here")
def link_there(t):
    files.write("a", b"data")
    eq(os.stat("a").st_nlink, 1)
    host.os.link(t.there("a"), t.there("b"))
    eq(os.stat("a").st_nlink, 2)
    eq(files.read("b"), b"data")
    host.os.unlink(t.there("a"))
    missing("a")
    eq(os.stat("b").st_nlink, 1)


@case("link to a name that exists is EEXIST, of nothing ENOENT, below a file ENOTDIR")
def link_errors(t):
    files.write("a")
    files.write("b")
    os.symlink("nowhere", "l")
    fails(EEXIST, os.link, "a", "b")
    fails(EEXIST, os.link, "a", "a")
    fails(EEXIST, os.link, "a", "l")
    fails(ENOENT, os.link, "n", "c")
    fails(ENOENT, os.link, "a", "n/c")
    fails(ENOTDIR, os.link, "a", "b/c")
    fails(ENOTDIR, os.link, "a/x", "c")


@case("link of a directory is EPERM")
def link_directory(t):
    os.mkdir("d")
    fails(EPERM, os.link, "d", "e")


@case("link of a symlink makes another name of the symlink")
def link_symlink(t):
    os.symlink("text", "l")
    os.link("l", "m", follow_symlinks=False)
    eq(os.readlink("m"), "text")
    eq(os.lstat("l").st_nlink, 2)


@case("link follows a symlink when asked to")
def link_follow(t):
    files.write("f", b"data")
    os.symlink("f", "l")
    fd = os.open("l", os.O_RDONLY)
    syscalls.link_fd(fd, "g")
    os.close(fd)
    eq(os.stat("g").st_ino, os.stat("f").st_ino)


@case("link of fifos, sockets and devices", who=[ROOT])
def link_nodes(t):
    os.mkfifo("p")
    os.mknod("s", stat.S_IFSOCK | 0o600)
    os.mknod("n", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for name in ("p", "s", "n"):
        os.link(name, name + "2")
        eq(os.lstat(name).st_ino, os.lstat(name + "2").st_ino)


@case("link into a directory that may not be written to is EACCES", who=[USER])
def link_permission(t):
    files.write("f")
    os.mkdir("d", 0o555)
    fails(EACCES, os.link, "f", "d/f")
    os.chmod("f", 0o666)
    os.mkdir("w", 0o777)
    os.chmod("w", 0o777)
    as_user(OTHER, os.link, t.path("f"), t.path("w/f"))
    eq(os.stat("w/f").st_uid, USER.uid)


@case("link after a full circle: all names removed, the last one frees the file")
def link_circle(t):
    files.write("f0", b"data")
    for number in range(1, 40):
        os.link(f"f{number - 1}", f"f{number}")
    eq(os.stat("f39").st_nlink, 40)
    for number in range(39):
        os.unlink(f"f{number}")
    eq((os.stat("f39").st_nlink, files.read("f39")), (1, b"data"))


@case("a symlink's text is returned unmodified, whatever it is")
def symlink_text(t):
    for number, text in enumerate([b"relative", b"/absolute", b"../up", b"//two//slashes/", b".", b"..", b" ", b"a\nb",
                                   "größe".encode(), b"\xff\xfe", b"/proc/self/exe", b"x" * 255, b"a/" * 100]):
        name = f"l{number}".encode()
        os.symlink(text, name)
        eq(os.readlink(name), text)
        eq(os.lstat(name).st_size, len(text))
        true(stat.S_ISLNK(os.lstat(name).st_mode), "S_IFLNK")
        eq(host.os.readlink(os.path.join(os.fsencode(t.host_dir), name)), text)


@case("a symlink's text may have 4095 bytes, not 4096: ENAMETOOLONG")
def symlink_longest(t):
    text = "t" * 4095
    os.symlink(text, "l")
    eq(os.readlink("l"), text)
    eq(os.lstat("l").st_size, 4095)
    fails(ENAMETOOLONG, os.symlink, text + "t", "m")


@case("a symlink made on the host reads the same here", who=[ROOT])
def symlink_there(t):
    host.os.symlink("/etc/hostname", t.there("l"))
    eq(os.readlink("l"), "/etc/hostname")
    host.os.symlink("x" * 3000, t.there("long"))
    eq(os.readlink("long"), "x" * 3000)


@case("an absolute symlink leads to this machine's files, as everywhere", who=[ROOT])
def symlink_absolute(t):
    os.symlink("/proc/self/status", "l")
    true(f"Pid:\t{os.getpid()}\n".encode() in files.read("l"), "my own status")
    os.symlink(t.dir, "back")
    files.write("f", b"data")
    eq(files.read("back/back/f"), b"data")


@case("symlinks are followed in the middle and at the end, relative to where they are")
def symlink_follow(t):
    os.makedirs("a/b")
    files.write("a/f", b"data")
    os.symlink("../f", "a/b/l")
    os.symlink("a/b", "d")
    eq(files.read("d/l"), b"data")
    eq(os.stat("d/l").st_size, 4)
    os.chmod("d/l", 0o600)
    eq(oct(stat.S_IMODE(os.stat("a/f").st_mode)), oct(0o600))


@case("a dangling symlink can be read and removed, not followed: ENOENT")
def symlink_dangling(t):
    os.symlink("nowhere", "l")
    fails(ENOENT, os.stat, "l")
    fails(ENOENT, os.open, "l", os.O_RDONLY)
    eq(os.readlink("l"), "nowhere")
    eq(os.path.lexists("l"), True)
    os.unlink("l")


@case("loops of symlinks are ELOOP")
def symlink_loop(t):
    os.symlink("b", "a")
    os.symlink("a", "b")
    os.symlink("self/x", "self")
    for name in ("a", "b", "self"):
        fails(ELOOP, os.stat, name)
        fails(ELOOP, os.open, name, os.O_RDONLY)
    files.write("end")
    os.symlink("end", "s0")
    for number in range(1, 41):
        os.symlink(f"s{number - 1}", f"s{number}")
    os.stat("s39")
    fails(ELOOP, os.stat, "s40")


@case("symlink to a name that exists is EEXIST, below a file ENOTDIR, below nothing ENOENT")
def symlink_errors(t):
    files.write("f")
    fails(EEXIST, os.symlink, "text", "f")
    os.symlink("text", "l")
    fails(EEXIST, os.symlink, "text", "l")
    fails(ENOTDIR, os.symlink, "text", "f/l")
    fails(ENOENT, os.symlink, "text", "n/l")


@case("readlink of what is no symlink is EINVAL, of nothing ENOENT")
def readlink_errors(t):
    files.write("f")
    os.mkdir("d")
    fails(EINVAL, os.readlink, "f")
    fails(EINVAL, os.readlink, "d")
    fails(ENOENT, os.readlink, "n")


@case("lchown changes the symlink itself", who=[ROOT])
def symlink_owner(t):
    files.write("f")
    os.symlink("f", "l")
    os.lchown("l", 1001, 1002)
    eq((os.lstat("l").st_uid, os.lstat("l").st_gid, os.stat("l").st_uid), (1001, 1002, 0))


@case("a symlink belongs to who made it, and its mode is always 0777", who=[USER])
def symlink_mode(t):
    os.umask(0o077)
    os.symlink("text", "l")
    status = os.lstat("l")
    eq((oct(stat.S_IMODE(status.st_mode)), status.st_uid), (oct(0o777), USER.uid))
