# SPDX-License-Identifier: GPL-2.0
"""mkdir, rmdir and unlink."""

import os
import stat
from errno import EACCES, EBUSY, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, EPERM

from qtest import OTHER, ROOT, USER, as_user, case, eq, fails, files, host, missing, on_host, run, true


@on_host
def tree(top):
    return sorted(os.path.relpath(os.path.join(path, name), top) for path, dirs, names in os.walk(top) for name in dirs + names)


@case("mkdir makes an empty directory with the mode less the umask")
def mkdir(t):
    os.umask(0o022)
    os.mkdir("d", 0o777)
    status = os.stat("d")
    eq(oct(status.st_mode), oct(stat.S_IFDIR | 0o755))
    eq((status.st_uid, status.st_gid, status.st_nlink), (t.who.uid, t.who.gid, 2))
    eq(os.listdir("d"), [])
    os.umask(0o777)
    os.mkdir("e", 0o777)
    eq(oct(stat.S_IMODE(os.stat("e").st_mode)), oct(0))
    eq(oct(host.os.stat(t.there("e")).st_mode), oct(stat.S_IFDIR))


@case("mkdir keeps the sticky bit, and drops the set-id bits")
def mkdir_mode(t):
    os.mkdir("d", 0o1755)
    eq(oct(os.stat("d").st_mode), oct(host.os.stat(t.there("d")).st_mode))
    true(os.stat("d").st_mode & stat.S_ISVTX, "sticky")


@case("mkdir of a name that exists is EEXIST, whatever it is")
def mkdir_exists(t):
    files.write("f")
    os.mkdir("d")
    os.symlink("nowhere", "l")
    os.mkfifo("p")
    for name in ("f", "d", "l", "p"):
        fails(EEXIST, os.mkdir, name)
    host.os.mkdir(t.there("made-there"))
    fails(EEXIST, os.mkdir, "made-there")


@case("mkdir below what is missing is ENOENT, below a file ENOTDIR, in a symlink loop ELOOP")
def mkdir_nowhere(t):
    files.write("f")
    os.symlink("loop", "loop")
    os.symlink("nowhere", "dangling")
    fails(ENOENT, os.mkdir, "n/d")
    fails(ENOTDIR, os.mkdir, "f/d")
    fails(ELOOP, os.mkdir, "loop/d")
    fails(ENOENT, os.mkdir, "dangling/d")


@case("mkdir in a directory that may not be written to is EACCES", who=[USER])
def mkdir_forbidden(t):
    os.mkdir("d", 0o555)
    fails(EACCES, os.mkdir, "d/e")
    fails(EACCES, as_user, OTHER, os.mkdir, t.path("e"))
    os.chmod("d", 0o700)
    fails(EACCES, as_user, OTHER, os.mkdir, t.path("d/e"))
    eq(tree(t.host_dir), ["d"])


@case("rmdir removes an empty directory")
def rmdir(t):
    os.mkdir("d")
    os.rmdir("d")
    missing("d")
    eq(tree(t.host_dir), [])


@case("rmdir of a directory with anything in it is ENOTEMPTY, also when the host put it there")
def rmdir_not_empty(t):
    os.mkdir("d")
    files.write("d/f")
    fails((ENOTEMPTY, EEXIST), os.rmdir, "d")
    os.unlink("d/f")
    host.files.write(t.there("d/.hidden"), b"")
    fails((ENOTEMPTY, EEXIST), os.rmdir, "d")
    host.os.unlink(t.there("d/.hidden"))
    os.rmdir("d")


@case("rmdir of a file or a symlink is ENOTDIR, of nothing ENOENT")
def rmdir_errors(t):
    files.write("f")
    os.mkdir("d")
    os.symlink("d", "l")
    fails(ENOTDIR, os.rmdir, "f")
    fails(ENOTDIR, os.rmdir, "l")
    fails(ENOTDIR, os.rmdir, "f/g")
    fails(ENOENT, os.rmdir, "n")
    fails(EINVAL, os.rmdir, "d/.")
    eq(tree(t.host_dir), ["d", "f", "l"])


@case("the root of the mount can't be removed: EBUSY", who=[ROOT], needs="two")
def rmdir_root(t):
    fails(EBUSY, os.rmdir, t.fs.mnt)


@case("a mount point of the host can't be removed or renamed: EBUSY", who=[ROOT], needs="two")
def rmdir_mounted(t):
    os.mkdir("m")
    host.run(["mount", "-t", "tmpfs", "tmpfs", t.there("m")])
    try:
        fails(EBUSY, os.rmdir, "m")
        fails(EBUSY, os.rename, "m", "n")
    finally:
        host.server.umount(t.there("m"))
    os.rmdir("m")


@case("unlink removes a name; the file stays while it has another")
def unlink(t):
    files.write("f", b"data")
    os.link("f", "g")
    os.unlink("f")
    missing("f")
    eq(files.read("g"), b"data")
    eq(os.stat("g").st_nlink, 1)
    os.unlink("g")
    eq(tree(t.host_dir), [])


@case("unlink removes symlinks, fifos and sockets, not what symlinks lead to")
def unlink_kinds(t):
    files.write("f")
    os.symlink("f", "l")
    os.symlink("nowhere", "dangling")
    os.mkfifo("p")
    os.mknod("s", stat.S_IFSOCK | 0o600)
    for name in ("l", "dangling", "p", "s"):
        os.unlink(name)
    eq(tree(t.host_dir), ["f"])


@case("unlink of a directory is EISDIR, of nothing ENOENT, below a file ENOTDIR")
def unlink_errors(t):
    os.mkdir("d")
    files.write("f")
    fails((EISDIR, EPERM), os.unlink, "d")
    fails(ENOENT, os.unlink, "n")
    fails(ENOTDIR, os.unlink, "f/g")
    eq(tree(t.host_dir), ["d", "f"])


@case("unlink needs the permission to write to the directory, not to the file", who=[USER])
def unlink_permission(t):
    files.write("f", b"", 0o000)
    os.unlink("f")
    os.mkdir("d")
    files.write("d/f")
    os.chmod("d", 0o555)
    fails(EACCES, os.unlink, "d/f")
    os.chmod("d", 0o755)
    fails(EACCES, as_user, OTHER, os.unlink, t.path("d/f"))
    os.chmod("d", 0o777)
    as_user(OTHER, os.unlink, t.path("d/f"))


@case("in a sticky directory only the owner of file or directory removes and renames: EPERM", who=[ROOT])
def sticky(t):
    os.mkdir("d")
    os.chmod("d", 0o1777)
    as_user(USER, files.write, t.path("d/f"))
    fails(EPERM, as_user, OTHER, os.unlink, t.path("d/f"))
    fails(EPERM, as_user, OTHER, os.rename, t.path("d/f"), t.path("d/g"))
    as_user(OTHER, files.write, t.path("d/h"))
    fails(EPERM, as_user, OTHER, os.rename, t.path("d/h"), t.path("d/f"))
    as_user(USER, os.mkdir, t.path("d/s"))
    fails(EPERM, as_user, OTHER, os.rmdir, t.path("d/s"))
    as_user(USER, os.unlink, t.path("d/f"))
    os.unlink("d/h")
    eq(tree(t.host_dir), ["d", "d/s"])


@case("a removed name is free at once for something of another kind")
def reuse(t):
    for _ in range(5):
        os.mkdir("x")
        os.rmdir("x")
        files.write("x", b"data")
        eq(files.read("x"), b"data")
        os.unlink("x")
        os.symlink("text", "x")
        eq(os.readlink("x"), "text")
        os.unlink("x")
    missing("x")


@case("a deep tree is made by mkdir -p and removed by rm -rf")
def deep(t):
    deep_path = "/".join(f"d{number}" for number in range(40))
    run(["mkdir", "-p", deep_path])
    files.write(deep_path + "/f", b"data")
    eq(len(tree(t.host_dir)), 41)
    run(["rm", "-rf", "d0"])
    eq(tree(t.host_dir), [])


@case("getcwd is right, also after a parent was renamed here")
def working_directory(t):
    os.makedirs("a/b")
    os.chdir("a/b")
    eq(os.getcwd(), t.path("a/b"))
    os.rename(t.path("a"), t.path("c"))
    eq(os.getcwd(), t.path("c/b"))
    files.write("f", b"data")
    eq(files.read(t.path("c/b/f")), b"data")
    os.chdir("..")
    eq(os.getcwd(), t.path("c"))
