# SPDX-License-Identifier: GPL-2.0
"""chown, set-id bits, set-gid directories and umask."""

import mmap
import os
import stat
import tempfile
from errno import EPERM

from qtest import OTHER, ROOT, USER, Who, as_user, case, eq, fails, files, host, run


def mode_of(path):
    """Permission bits."""
    return oct(stat.S_IMODE(os.lstat(path).st_mode))


@case("root gives files to anyone, and the numbers arrive as they are", who=[ROOT])
def chown(t):
    files.write("f")
    for uid, gid in ((1001, 1002), (0, 0), (65534, 65534), (2**31, 2**32 - 2)):
        os.chown("f", uid, gid)
        for status in (os.stat("f"), host.os.stat(t.there("f"))):
            eq((status.st_uid, status.st_gid), (uid, gid))
    os.chown("f", -1, 5)
    eq((os.stat("f").st_uid, os.stat("f").st_gid), (2**31, 5))
    os.chown("f", 6, -1)
    eq((os.stat("f").st_uid, os.stat("f").st_gid), (6, 5))
    fd = os.open("f", os.O_RDONLY)
    os.fchown(fd, 7, 8)
    os.close(fd)
    eq((os.stat("f").st_uid, os.stat("f").st_gid), (7, 8))


@case("an owner can give a file to a group of his, not to other groups or users: EPERM", who=[USER])
def chgrp(t):
    files.write("f")
    os.chown("f", -1, 2001)
    eq(os.stat("f").st_gid, 2001)
    os.chown("f", USER.uid, 2002)
    eq(os.stat("f").st_gid, 2002)
    fails(EPERM, os.chown, "f", -1, 2003)
    fails(EPERM, os.chown, "f", 1002, -1)
    fails(EPERM, os.chown, "f", 0, 0)
    eq((os.stat("f").st_uid, os.stat("f").st_gid), (USER.uid, 2002))


@case("who does not own a file can't chown it: EPERM", who=[USER])
def chown_forbidden(t):
    files.write("f")
    fails(EPERM, as_user, OTHER, os.chown, t.path("f"), 1002, 1002)
    fails(EPERM, as_user, OTHER, os.chown, t.path("f"), -1, 1002)


@case("chown by an ordinary user clears set-user-id and set-group-id", who=[USER])
def chown_clears(t):
    files.write("f", b"", 0o755)
    os.chmod("f", 0o6755)
    eq(mode_of("f"), oct(0o6755))
    os.chown("f", -1, 2001)
    eq(mode_of("f"), oct(0o755))


@case("chown by root clears them too on executables, and keeps the bits of directories", who=[ROOT])
def chown_clears_for_root(t):
    files.write("f", b"", 0o755)
    os.chmod("f", 0o6755)
    os.chown("f", 1001, 1001)
    eq(mode_of("f"), oct(0o755))
    files.write("g", b"", 0o644)
    os.chmod("g", 0o2644)
    os.chown("g", 1001, 1001)
    eq(mode_of("g"), oct(0o2644), "set-group-id without group x means nothing and is kept")
    os.mkdir("d")
    os.chmod("d", 0o6755)
    os.chown("d", 1001, 1001)
    eq(mode_of("d"), oct(0o6755))


@case("writing by who is not root clears set-user-id and set-group-id", who=[ROOT])
def write_clears(t):
    for action in ("write", "truncate", "open with O_TRUNC", "fallocate", "mmap", "O_DIRECT", "splice"):
        files.write("f", b"data" * 2048)
        os.chmod("f", 0o6777)
        as_user(OTHER, change, t.path("f"), action)
        eq(mode_of("f"), oct(0o777), action)
        eq(oct(stat.S_IMODE(host.os.stat(t.there("f")).st_mode)), oct(0o777), action)


def change(path, action):
    """Changes a file in one of many ways."""
    if action == "truncate":
        os.truncate(path, 100)
        return
    flags = os.O_RDWR | (os.O_TRUNC if "O_TRUNC" in action else 0) | (os.O_DIRECT if action == "O_DIRECT" else 0)
    fd = os.open(path, flags)
    if action == "write":
        os.write(fd, b"x")
    elif action == "fallocate":
        os.posix_fallocate(fd, 0, 100000)
    elif action == "mmap":
        # A mapping alone clears nothing; a write beside it does.
        mapped = mmap.mmap(fd, 4096)
        mapped[0:1] = b"y"
        os.pwrite(fd, b"x", 5000)
        mapped.close()
    elif action == "O_DIRECT":
        os.pwritev(fd, [mmap.mmap(-1, 4096)], 0)
    elif action == "splice":
        read_end, write_end = os.pipe()
        os.write(write_end, b"piped")
        os.splice(read_end, fd, 5, offset_dst=0)
    os.close(fd)


@case("writing by root keeps them", who=[ROOT])
def root_keeps(t):
    files.write("f", b"data")
    os.chmod("f", 0o6777)
    files.append("f", b"more")
    eq(mode_of("f"), oct(0o6777))


@case("writing removes file capabilities", who=[ROOT])
def write_removes_capabilities(t):
    files.write("f", b"data", 0o777)
    os.chmod("f", 0o777)
    run(["setcap", "cap_net_raw=ep", "f"])
    eq("security.capability" in os.listxattr("f"), True)
    as_user(OTHER, files.append, t.path("f"), b"more")
    eq("security.capability" in os.listxattr("f"), False)


def open_and_chown(path):
    fd = os.open(path, os.O_RDONLY)
    os.fchown(fd, 1001, 1001)
    os.close(fd)


@case("chown removes file capabilities, however it comes to the file, also when they were set a moment ago", who=[ROOT])
def chown_removes_capabilities(t):
    files.write("f", b"data", 0o755)
    listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    ways = (lambda: os.chown("f", 1001, 1001), lambda: os.lchown("f", -1, -1), lambda: open_and_chown("f"),
            lambda: os.chown(f"/proc/self/fd/{listing}/f", 1001, -1))
    for number, change_owner in enumerate(ways):
        eq(os.listdir(listing), ["f"])
        host.run(["setcap", "cap_net_raw=ep", t.there("f")])
        change_owner()
        eq("security.capability" in host.os.listxattr(t.there("f")), False, str(number))
    os.close(listing)


@case("chown of what has no file capabilities changes nothing else, whatever it is", who=[ROOT])
def chown_of_every_type(t):
    files.write("f", b"data")
    os.setxattr("f", "trusted.kept", b"value")
    os.mkdir("d")
    os.symlink("nowhere", "l")
    os.mkfifo("p")
    os.mknod("n", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for name in ("f", "d", "l", "p", "n"):
        os.lchown(name, 1001, 1002)
        status = host.os.lstat(t.there(name))
        eq((status.st_uid, status.st_gid), (1001, 1002), name)
    eq(host.os.getxattr(t.there("f"), "trusted.kept"), b"value")


@case("chown in an overlay of this machine removes file capabilities that are in a layer of the host", who=[ROOT], needs="two")
def chown_in_overlay(t):
    files.write("f", b"data", 0o755)
    files.write("g", b"data", 0o755)
    run(["setcap", "cap_net_raw=ep", "f"])
    top = tempfile.mkdtemp(dir="/run")
    run(["mount", "-t", "tmpfs", "tmpfs", top])
    try:
        for name in ("upper", "work", "merged"):
            os.mkdir(f"{top}/{name}")
        run(["mount", "-t", "overlay", "-o", f"lowerdir={t.dir},upperdir={top}/upper,workdir={top}/work", "overlay", f"{top}/merged"])
        try:
            for name in ("f", "g"):
                os.chown(f"{top}/merged/{name}", 1001, 1001)
                eq(os.stat(f"{top}/merged/{name}").st_uid, 1001)
                eq("security.capability" in os.listxattr(f"{top}/upper/{name}"), False, name)
        finally:
            run(["umount", f"{top}/merged"])
    finally:
        run(["umount", top])
        os.rmdir(top)
    eq("security.capability" in os.listxattr("f"), True, "the layer itself stays as it is")


@case("in a set-gid directory files get its group, and directories the bit as well", who=[ROOT])
def setgid_directory(t):
    os.mkdir("d")
    os.chown("d", 1001, 2001)
    os.chmod("d", 0o2777)

    def make():
        files.write(t.path("d/f"))
        os.mkdir(t.path("d/s"), 0o755)
        os.symlink("x", t.path("d/l"))
        os.mkfifo(t.path("d/p"))
        os.close(os.open(t.path("d"), os.O_TMPFILE | os.O_RDWR))

    as_user(OTHER, make)
    for name in ("f", "s", "l", "p"):
        status = os.lstat(f"d/{name}")
        eq((status.st_uid, status.st_gid), (OTHER.uid, 2001), name)
    eq(mode_of("d/s"), oct(0o2755))


@case("in a set-gid directory a stranger to the group gets no set-gid executable", who=[ROOT])
def setgid_strip(t):
    os.mkdir("d")
    os.chown("d", 1001, 2001)
    os.chmod("d", 0o2777)
    fd = as_user(OTHER, lambda: os.open(t.path("d/f"), os.O_CREAT | os.O_WRONLY, 0o2775))
    eq(fd >= 0, True)
    eq(mode_of("d/f"), oct(0o755))
    member = Who("member", 1003, 1003, [2001])
    as_user(member, lambda: os.close(os.open(t.path("d/g"), os.O_CREAT | os.O_WRONLY, 0o2775)))
    eq(mode_of("d/g"), oct(0o2755))


@case("chmod by a stranger to the file's group drops set-group-id", who=[ROOT])
def chmod_strip(t):
    files.write("f", b"", 0o755)
    os.chown("f", 1002, 2001)
    as_user(OTHER, os.chmod, t.path("f"), 0o2755)
    eq(mode_of("f"), oct(0o755))
    os.chmod("f", 0o2755)
    eq(mode_of("f"), oct(0o2755), "root can")


@case("a new file's group is the process's, set-gid or not", who=[ROOT])
def group_of_process(t):
    os.mkdir("d")
    os.chown("d", 0, 2001)
    os.chmod("d", 0o777)
    as_user(USER, files.write, t.path("d/f"))
    eq(os.stat("d/f").st_gid, USER.gid)


@case("each umask gives the mode that it should")
def umask(t):
    for mask in (0o000, 0o022, 0o027, 0o077, 0o777):
        os.umask(mask)
        os.close(os.open(f"f{mask}", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(f"d{mask}", 0o777)
        os.mkfifo(f"p{mask}", 0o666)
        eq((mode_of(f"f{mask}"), mode_of(f"d{mask}"), mode_of(f"p{mask}")),
           (oct(0o666 & ~mask), oct(0o777 & ~mask), oct(0o666 & ~mask)), oct(mask))


@case("a set-user-id program runs as its owner", who=[ROOT])
def setuid_program(t):
    files.write("id", files.read("/usr/bin/id"), 0o755)
    os.chown("id", 1002, 1002)
    os.chmod("id", 0o6755)
    found = run([t.path("id"), "-u"], who=USER).text
    eq(found, "1002")
