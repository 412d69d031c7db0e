# SPDX-License-Identifier: GPL-2.0
"""Extended attributes of every namespace arrive on the host as they are, and come back so."""

import ctypes
import os
import stat
from errno import E2BIG, EEXIST, EINVAL, ENODATA, ENOENT, ENOSPC, EOPNOTSUPP, EPERM, ERANGE

from qtest import OTHER, ROOT, USER, as_user, case, eq, fails, files, host, on_host, run, syscalls, true

XATTR_CREATE, XATTR_REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE


@on_host
def attributes_there(path):
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


@case("user.* is set, read, listed and removed")
def user(t):
    files.write("f")
    os.setxattr("f", "user.one", b"1")
    os.setxattr("f", "user.two", b"\0binary\xff")
    eq(os.getxattr("f", "user.one"), b"1")
    eq(sorted(os.listxattr("f")), ["user.one", "user.two"])
    eq(attributes_there(t.there("f")), {"user.one": b"1", "user.two": b"\0binary\xff"})
    os.setxattr("f", "user.one", b"changed")
    eq(attributes_there(t.there("f"))["user.one"], b"changed")
    os.removexattr("f", "user.one")
    eq(os.listxattr("f"), ["user.two"])
    fails(ENODATA, os.getxattr, "f", "user.one")
    fails(ENODATA, os.removexattr, "f", "user.one")


@case("what the host sets is seen by the next call here")
def set_there(t):
    files.write("f")
    fails(ENODATA, os.getxattr, "f", "user.x")
    host.os.setxattr(t.there("f"), "user.x", b"first")
    eq(os.getxattr("f", "user.x"), b"first")
    host.os.setxattr(t.there("f"), "user.x", b"second, longer")
    eq(os.getxattr("f", "user.x"), b"second, longer")
    host.os.removexattr(t.there("f"), "user.x")
    fails(ENODATA, os.getxattr, "f", "user.x")
    eq(os.listxattr("f"), [])


@case("an empty value is a value")
def empty(t):
    files.write("f")
    os.setxattr("f", "user.empty", b"")
    eq(os.getxattr("f", "user.empty"), b"")
    eq(os.listxattr("f"), ["user.empty"])


@case("XATTR_CREATE fails with EEXIST when it exists, XATTR_REPLACE with ENODATA when not")
def create_replace(t):
    files.write("f")
    fails(ENODATA, os.setxattr, "f", "user.x", b"1", XATTR_REPLACE)
    os.setxattr("f", "user.x", b"1", XATTR_CREATE)
    fails(EEXIST, os.setxattr, "f", "user.x", b"2", XATTR_CREATE)
    os.setxattr("f", "user.x", b"3", XATTR_REPLACE)
    eq(os.getxattr("f", "user.x"), b"3")
    fails(EINVAL, os.setxattr, "f", "user.x", b"4", 77)


def raw(call, name, size, path="f"):
    """getxattr or listxattr with a buffer of that size: the count or the errno."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    if call == "get":
        count = syscalls.libc.getxattr(path.encode(), name.encode(), buffer if size else None, size)
    else:
        count = syscalls.libc.listxattr(path.encode(), buffer if size else None, size)
    return count if count >= 0 else -ctypes.get_errno()


@case("size 0 asks how long it is; a buffer that is too small is ERANGE, one that fits is not")
def sizes(t):
    files.write("f")
    os.setxattr("f", "user.x", b"v" * 100)
    eq(raw("get", "user.x", 0), 100)
    eq(raw("get", "user.x", 99), -ERANGE)
    eq(raw("get", "user.x", 100), 100)
    eq(raw("get", "user.x", 4096), 100)
    eq(raw("get", "user.none", 0), -ENODATA)
    length = len("user.x\0")
    eq(raw("list", "", 0), length)
    eq(raw("list", "", length - 1), -ERANGE)
    eq(raw("list", "", length), length)


@case("long names up to 255 bytes, long values as far as the host's file system takes them")
def limits(t):
    files.write("f")
    name = "user." + "n" * 250
    os.setxattr("f", name, b"value")
    eq(os.getxattr("f", name), b"value")
    fails(ERANGE, os.setxattr, "f", name + "n", b"value")
    os.removexattr("f", name)
    os.setxattr("f", "user.long", files.pattern(3000))
    eq(os.getxattr("f", "user.long"), files.pattern(3000))
    try:
        host.os.setxattr(t.there("f"), "user.longer", files.pattern(60000))
        longer = None
    except OSError as error:
        longer = error.errno
    if longer is None:
        eq(os.getxattr("f", "user.longer"), files.pattern(60000))
    else:
        fails((longer, ENOSPC), os.setxattr, "f", "user.longer", files.pattern(60000))
    fails((E2BIG, ERANGE), os.setxattr, "f", "user.longest", b"x" * 65537)


@case("many attributes at once, so that the list takes several kilobytes")
def many(t):
    files.write("f")
    wanted = [f"user.{number:03}{'x' * 20}" for number in range(60)]
    for name in wanted:
        os.setxattr("f", name, name[:8].encode())
    eq(sorted(os.listxattr("f")), wanted)
    eq(sorted(attributes_there(t.there("f"))), wanted)


@case("user.* on symlinks and special files is EPERM, on directories it works")
def user_kinds(t):
    os.mkdir("d")
    os.setxattr("d", "user.x", b"1")
    eq(os.getxattr("d", "user.x"), b"1")
    os.mkfifo("p")
    os.symlink("d", "l")
    fails(EPERM, os.setxattr, "p", "user.x", b"1")
    fails(EPERM, os.setxattr, "l", "user.x", b"1", follow_symlinks=False)
    eq(os.getxattr("l", "user.x"), b"1")


@case("user.* needs read and write permission", who=[USER])
def user_permission(t):
    files.write("f")
    os.setxattr("f", "user.x", b"1")
    os.chmod("f", 0o444)
    fails((13, EPERM), as_user, OTHER, os.setxattr, t.path("f"), "user.x", b"2")
    eq(as_user(OTHER, os.getxattr, t.path("f"), "user.x"), b"1")
    os.chmod("f", 0o600)
    fails((13, EPERM), as_user, OTHER, os.getxattr, t.path("f"), "user.x")


@case("trusted.* is for root: others get EPERM on setting and ENODATA or nothing on reading", who=[ROOT])
def trusted(t):
    files.write("f")
    os.chmod("f", 0o666)
    os.setxattr("f", "trusted.secret", b"value")
    eq(attributes_there(t.there("f")), {"trusted.secret": b"value"})
    eq(os.listxattr("f"), ["trusted.secret"])
    eq(as_user(USER, os.listxattr, t.path("f")), [])
    fails((ENODATA, EPERM), as_user, USER, os.getxattr, t.path("f"), "trusted.secret")
    fails(EPERM, as_user, USER, os.setxattr, t.path("f"), "trusted.secret", b"other")
    fails(EPERM, as_user, USER, os.removexattr, t.path("f"), "trusted.secret")


@case("trusted.overlay.* goes through unmodified, on files, directories, whiteouts and symlinks", who=[ROOT])
def overlay(t):
    files.write("f")
    os.mkdir("d")
    os.symlink("x", "l")
    os.mknod("w", stat.S_IFCHR, 0)
    for path in ("f", "d", "l", "w"):
        for name, value in (("opaque", b"y"), ("origin", bytes(range(40))), ("redirect", "/größe".encode()), ("whiteout", b""),
                            ("metacopy", b""), ("uuid", bytes(16)), ("impure", b"y"), ("nlink", b"U+1")):
            os.setxattr(path, f"trusted.overlay.{name}", value, follow_symlinks=False)
        there = attributes_there(t.there(path))
        eq(len(there), 8, path)
        eq(there["trusted.overlay.origin"], bytes(range(40)))
        eq({name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}, there)


@case("security.capability keeps its exact bytes", who=[ROOT])
def capability(t):
    files.write("f", b"", 0o755)
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr("f", "security.capability", value)
    eq(attributes_there(t.there("f")), {"security.capability": value})
    eq(os.getxattr("f", "security.capability"), value)
    eq(run(["getcap", "f"]).text, "f cap_net_raw=ep")
    run(["setcap", "cap_sys_admin,cap_net_admin=eip", "f"])
    eq(host.run(["getcap", t.there("f")]).text.split(" ")[1], run(["getcap", "f"]).text.split(" ")[1])
    host.run(["setcap", "-r", t.there("f")])
    fails(ENODATA, os.getxattr, "f", "security.capability")


@case("a program with file capabilities gets them", who=[ROOT])
def capability_works(t):
    files.write("cat", files.read("/usr/bin/cat"), 0o755)
    files.write("secret", b"data", 0o600)
    os.chmod("cat", 0o755)
    denied = run([t.path("cat"), t.path("secret")], who=OTHER, check=False)
    true(denied.status != 0, "cat without capabilities fails")
    run(["setcap", "cap_dac_read_search=ep", "cat"])
    eq(run([t.path("cat"), t.path("secret")], who=OTHER).out, b"data")


@case("other security.* names are kept too", who=[ROOT])
def security(t):
    files.write("f")
    os.setxattr("f", "security.anything", b"label")
    eq(attributes_there(t.there("f")), {"security.anything": b"label"})
    eq(os.getxattr("f", "security.anything"), b"label")


@case("an unknown namespace is EOPNOTSUPP, a name without one too")
def unknown(t):
    files.write("f")
    for name in ("nonsense.x", "x", "user", "trustedx"):
        fails((EOPNOTSUPP, EINVAL), os.setxattr, "f", name, b"1")
        fails((EOPNOTSUPP, EINVAL, ENODATA), os.getxattr, "f", name)
    fails((EINVAL, EOPNOTSUPP), os.setxattr, "f", "user.", b"1")
    fails(ENOENT, os.getxattr, "n", "user.x")


@case("fsetxattr, fgetxattr and flistxattr work on an open file, also an unlinked one")
def by_descriptor(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.setxattr(fd, "user.x", b"1")
    os.unlink("f")
    eq(os.getxattr(fd, "user.x"), b"1")
    os.setxattr(fd, "user.y", b"2")
    eq(sorted(os.listxattr(fd)), ["user.x", "user.y"])
    os.removexattr(fd, "user.x")
    eq(os.listxattr(fd), ["user.y"])
    os.close(fd)


@case("a rename keeps attributes, setting one changes ctime only")
def kept(t):
    files.write("f")
    os.setxattr("f", "user.x", b"1")
    os.rename("f", "g")
    eq(os.getxattr("g", "user.x"), b"1")
    os.utime("g", (1000, 1000))
    before = os.stat("g")
    os.setxattr("g", "user.x", b"2")
    after = os.stat("g")
    eq(after.st_mtime, 1000)
    true(after.st_ctime_ns >= before.st_ctime_ns, "ctime does not go back")


@on_host
def counts_there(path, names):
    """Sets as many attributes with long names, on a file system that does not mind; how long their list is."""
    for number in range(names):
        os.setxattr(path, f"user.{number:0245d}", b"")
    return syscalls.libc.listxattr(os.fsencode(path), None, 0)


@case("a list that is longer than anybody can get has its length all the same", needs="qtfs", who=[ROOT])
def too_many(t):
    host.process.run(["mount", "-t", "tmpfs", "none", t.there(".")])
    try:
        host.files.write(t.there("f"), b"")
        there = counts_there(t.there("f"), 270)
        true(there > 65536, there)
        eq(syscalls.libc.listxattr(os.fsencode(t.path("f")), None, 0), there)
        fails(E2BIG, os.listxattr, t.path("f"))
    finally:
        host.process.run(["umount", "-l", t.there(".")])
