# SPDX-License-Identifier: GPL-2.0
"""POSIX access control lists, through getfacl, setfacl and the kernel's checks."""

import os
import stat
from errno import EACCES, EINVAL, ENODATA, EOPNOTSUPP, EPERM

from qtest import OTHER, ROOT, USER, Who, as_user, case, eq, fails, files, host, run, true


def acl(path):
    """The entries of getfacl."""
    return run(["getfacl", "-cpn", path]).text.split()


def acl_there(path):
    """The same, on the host."""
    return host.run(["getfacl", "-cpn", path]).text.split()


@case("an access ACL lets a named user and a named group in", who=[ROOT])
def named(t):
    files.write("f", b"data")
    os.chmod("f", 0o600)
    fails(EACCES, as_user, USER, files.read, t.path("f"))
    run(["setfacl", "-n", "-m", f"u:{USER.uid}:r,m::rw", "f"])
    eq(as_user(USER, files.read, t.path("f")), b"data")
    fails(EACCES, as_user, USER, files.append, t.path("f"), b"x")
    fails(EACCES, as_user, OTHER, files.read, t.path("f"))
    run(["setfacl", "-m", "g:4000:rw", "f"])
    member = Who("member", 1005, 1005, [4000])
    as_user(member, files.append, t.path("f"), b"-more")
    eq(acl("f"), acl_there(t.there("f")))


@case("an ACL that the host sets counts for the next call here", who=[ROOT])
def set_there(t):
    files.write("f", b"data", 0o600)
    fails(EACCES, as_user, USER, files.read, t.path("f"))
    host.run(["setfacl", "-m", f"u:{USER.uid}:r", t.there("f")])
    eq(as_user(USER, files.read, t.path("f")), b"data")
    eq(acl("f"), ["user::rw-", f"user:{USER.uid}:r--", "group::---", "mask::r--", "other::---"])
    host.run(["setfacl", "-b", t.there("f")])
    fails(EACCES, as_user, USER, files.read, t.path("f"))
    eq(acl("f"), ["user::rw-", "group::---", "other::---"])


@case("the mask limits named users and groups, and is the group bits of the mode", who=[ROOT])
def mask(t):
    files.write("f", b"data", 0o600)
    run(["setfacl", "-m", f"u:{USER.uid}:rw", "f"])
    eq(oct(stat.S_IMODE(os.stat("f").st_mode)), oct(0o660))
    as_user(USER, files.append, t.path("f"), b"1")
    os.chmod("f", 0o640)
    fails(EACCES, as_user, USER, files.append, t.path("f"), b"2")
    eq(as_user(USER, files.read, t.path("f")), b"data1")
    true("mask::r--" in acl("f"), "chmod changed the mask")
    eq(acl("f"), acl_there(t.there("f")))


@case("an entry can take rights away that others have", who=[ROOT])
def deny(t):
    files.write("f", b"data", 0o644)
    os.chmod("f", 0o644)
    run(["setfacl", "-m", f"u:{OTHER.uid}:---", "f"])
    eq(as_user(USER, files.read, t.path("f")), b"data")
    fails(EACCES, as_user, OTHER, files.read, t.path("f"))


@case("new files and directories get the default ACL of their directory, and no umask", who=[ROOT])
def default(t):
    os.umask(0o077)
    os.mkdir("d")
    run(["setfacl", "-d", "-m", f"u::rwx,g::r-x,o::r-x,u:{USER.uid}:rwx,m::rwx", "d"])
    files.write("d/f")
    os.mkdir("d/s")
    os.mkfifo("d/p", 0o666)
    eq(oct(stat.S_IMODE(os.stat("d/f").st_mode)), oct(0o664))
    eq(oct(stat.S_IMODE(os.stat("d/p").st_mode)), oct(0o664))
    true(f"user:{USER.uid}:rwx" in acl("d/f")[1], "named entry in the file's ACL")
    true(f"default:user:{USER.uid}:rwx" in acl("d/s"), "default ACL of the new directory")
    host.run(["setfacl", "-R", "-m", f"u:{USER.uid}:rwx", t.there("d")])
    for name in ("f", "s", "p"):
        eq(acl(f"d/{name}"), acl_there(t.there("d", name)), name)


@case("the default ACL and the mode that was asked for are combined as on the host", who=[ROOT])
def default_mode(t):
    os.umask(0o022)
    os.mkdir("here")
    run(["setfacl", "-d", "-m", "u::rwx,g::rwx,o::r-x,g:4000:rwx", "here"])
    host.call(__file__, "prepare_there", t.there("there"))
    for mode in (0o666, 0o600, 0o777, 0o4755, 0o000):
        os.close(os.open(f"here/{mode:o}", os.O_CREAT | os.O_WRONLY, mode))
        host.call(__file__, "create_there", t.there(f"there/{mode:o}"), mode)
        eq(acl(f"here/{mode:o}"), acl_there(t.there(f"there/{mode:o}")), oct(mode))


def prepare_there(path):
    os.mkdir(path)
    run(["setfacl", "-d", "-m", "u::rwx,g::rwx,o::r-x,g:4000:rwx", path])


def create_there(path, mode):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))


@case("setfacl -b and -k remove them again", who=[ROOT])
def remove(t):
    os.mkdir("d")
    run(["setfacl", "-m", "u:1001:rwx,d:u:1001:rwx", "d"])
    run(["setfacl", "-k", "d"])
    true(not any(line.startswith("default") for line in acl("d")), "no default entries")
    run(["setfacl", "-b", "d"])
    eq(acl("d"), ["user::rwx", "group::r-x", "other::r-x"])
    eq(host.os.listxattr(t.there("d")), [])


@case("an ACL is the owner's business: EPERM for others; files have no default ACL", who=[USER])
def owner(t):
    files.write("f")
    run(["setfacl", "-m", "u:1002:rw", "f"])
    refused = run(["setfacl", "-m", "u:1002:rwx", t.path("f")], check=False, who=OTHER)
    true("Operation not permitted" in refused.complaint, "EPERM")
    fails((EACCES, EPERM, EINVAL), os.setxattr, "f", "system.posix_acl_default",
          os.getxattr("f", "system.posix_acl_access"))


@case("the raw attributes system.posix_acl_* are the host's bytes; nonsense is refused", who=[ROOT])
def raw(t):
    files.write("f")
    fails(ENODATA, os.getxattr, "f", "system.posix_acl_access")
    run(["setfacl", "-m", "u:1001:rw", "f"])
    value = os.getxattr("f", "system.posix_acl_access")
    eq(value, host.os.getxattr(t.there("f"), "system.posix_acl_access"))
    true("system.posix_acl_access" in os.listxattr("f"), "listed")
    fails((EINVAL, EOPNOTSUPP), os.setxattr, "f", "system.posix_acl_access", b"nonsense")
    fails(EINVAL, os.setxattr, "f", "system.posix_acl_access", b"\2\0\0\0\x7f\0\x7f\0\0\0\0\0")
    files.write("g")
    os.setxattr("g", "system.posix_acl_access", value)
    eq(acl("g"), acl("f"))


@case("cp -a, tar --acls and mv keep ACLs", who=[ROOT])
def copies(t):
    os.mkdir("a")
    files.write("a/f", b"data")
    run(["setfacl", "-m", "u:1001:rw,g:4000:r", "a/f"])
    run("cp -a a b && tar --acls -C a -cf t.tar . && mkdir c && tar --acls -C c -xpf t.tar && mv b/f b/g")
    eq(acl("b/g"), acl("a/f"))
    eq(acl("c/f"), acl("a/f"))


@case("directories: search and write by ACL", who=[ROOT])
def directories(t):
    os.mkdir("d", 0o700)
    files.write("d/f", b"data", 0o644)
    fails(EACCES, as_user, USER, files.read, t.path("d/f"))
    run(["setfacl", "-m", f"u:{USER.uid}:x", "d"])
    eq(as_user(USER, files.read, t.path("d/f")), b"data")
    fails(EACCES, as_user, USER, os.listdir, t.path("d"))
    fails(EACCES, as_user, USER, files.write, t.path("d/g"))
    run(["setfacl", "-m", f"u:{USER.uid}:rwx", "d"])
    as_user(USER, files.write, t.path("d/g"))
    eq(os.stat("d/g").st_uid, USER.uid)
