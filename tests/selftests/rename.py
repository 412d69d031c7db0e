# SPDX-License-Identifier: GPL-2.0
"""rename(2) and renameat2(2)."""

import os
import stat
import time
from errno import EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EXDEV

from qtest import OTHER, ROOT, USER, as_user, case, eq, fails, files, host, missing, on_host, run, true
from qtest.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, rename2


@on_host
def names_there(path):
    return sorted(os.listdir(path))


@case("rename moves a name within a directory; inode and contents stay")
def same_directory(t):
    files.write("a", b"data")
    number = os.stat("a").st_ino
    os.rename("a", "b")
    missing("a")
    eq((files.read("b"), os.stat("b").st_ino), (b"data", number))
    eq(names_there(t.host_dir), ["b"])


@case("rename moves files and directories between directories")
def between_directories(t):
    os.makedirs("one/sub/deep")
    os.mkdir("two")
    files.write("one/f", b"f")
    files.write("one/sub/deep/g", b"g")
    os.rename("one/f", "two/f")
    os.rename("one/sub", "two/moved")
    eq(files.read("two/f"), b"f")
    eq(files.read("two/moved/deep/g"), b"g")
    eq(names_there(t.there("one")), [])
    eq((os.stat("one").st_nlink, os.stat("two").st_nlink), (2, 3))
    eq(os.stat("two/moved/..").st_ino, os.stat("two").st_ino)


@case("rename replaces a file in one step")
def replace(t):
    files.write("a", b"new")
    files.write("b", b"old")
    fd = os.open("b", os.O_RDONLY)
    os.rename("a", "b")
    eq(files.read("b"), b"new")
    eq(os.pread(fd, 10, 0), b"old", "the old file stays readable for who has it open")
    eq(os.fstat(fd).st_nlink, 0)
    os.close(fd)
    missing("a")


@case("rename replaces an empty directory, not a full one: ENOTEMPTY")
def replace_directory(t):
    os.makedirs("a/x")
    os.mkdir("b")
    os.rename("a", "b")
    eq(files.names("b"), ["x"])
    os.makedirs("c/y")
    fails((ENOTEMPTY, EEXIST), os.rename, "b", "c")
    host.files.write(t.there("c/from-host"), b"")
    os.rmdir("c/y")
    fails((ENOTEMPTY, EEXIST), os.rename, "b", "c")
    eq(files.names("b"), ["x"])


@case("a directory does not replace a file (ENOTDIR), a file no directory (EISDIR)")
def kinds(t):
    files.write("f")
    os.mkdir("d")
    fails(ENOTDIR, os.rename, "d", "f")
    fails(EISDIR, os.rename, "f", "d")
    eq(files.names(), ["d", "f"])


@case("a directory can't be moved into itself or below: EINVAL")
def into_itself(t):
    os.makedirs("a/b/c")
    fails(EINVAL, os.rename, "a", "a/x")
    fails(EINVAL, os.rename, "a", "a/b/c/x")
    fails((ENOTEMPTY, EINVAL), os.rename, "a/b/c", "a")
    eq(files.names("a/b"), ["c"])


@case("rename of nothing is ENOENT, into nothing ENOENT, below a file ENOTDIR, through a loop ELOOP")
def nowhere(t):
    files.write("f")
    os.symlink("loop", "loop")
    fails(ENOENT, os.rename, "n", "m")
    fails(ENOENT, os.rename, "f", "n/f")
    fails(ENOTDIR, os.rename, "f", "f/g")
    fails(ENOTDIR, os.rename, "f/g", "h")
    fails(ELOOP, os.rename, "loop/f", "g")
    eq(files.names(), ["f", "loop"])


@case("rename to itself, or to another name of the same file, does nothing")
def same_file(t):
    files.write("f", b"data")
    os.rename("f", "f")
    os.link("f", "g")
    os.rename("f", "g")
    eq(files.names(), ["f", "g"])
    eq(os.stat("f").st_nlink, 2)


@case("rename moves a symlink itself")
def symlink(t):
    files.write("f", b"data")
    os.symlink("f", "l")
    os.rename("l", "m")
    eq(os.readlink("m"), "f")
    files.write("g", b"other")
    os.rename("g", "m")
    true(stat.S_ISREG(os.lstat("m").st_mode), "the symlink was replaced")
    eq(files.read("f"), b"data")


@case("rename across the host's file systems is EXDEV, and mv copies then", who=[ROOT], needs="two")
def other_file_system(t):
    files.write("f", b"data")
    os.mkdir("m")
    host.run(["mount", "-t", "tmpfs", "tmpfs", t.there("m")])
    try:
        fails(EXDEV, os.rename, "f", "m/f")
        fails(EXDEV, os.link, "f", "m/f")
        host.files.write(t.there("m/g"), b"back")
        fails(EXDEV, os.rename, "m/g", "g")
        run(["mv", "f", "m/f"])
        eq(host.files.read(t.there("m/f")), b"data")
    finally:
        host.server.umount(t.there("m"))


@case("rename out of the mount is EXDEV", who=[ROOT])
def other_mount(t):
    files.write("f", b"data")
    fails(EXDEV, os.rename, "f", "/dev/shm/f")
    fails(EXDEV, os.link, "f", "/dev/shm/f")


@case("RENAME_NOREPLACE fails with EEXIST when the new name exists, else it renames")
def no_replace(t):
    files.write("a", b"a")
    files.write("b", b"b")
    os.mkdir("d")
    os.symlink("nowhere", "l")
    for name in ("b", "d", "l", "a"):
        fails(EEXIST, rename2, "a", name, RENAME_NOREPLACE)
    host.files.write(t.there("made-there"), b"")
    fails(EEXIST, rename2, "a", "made-there", RENAME_NOREPLACE)
    rename2("a", "new", RENAME_NOREPLACE)
    eq((files.read("new"), files.read("b")), (b"a", b"b"))
    fails(ENOENT, rename2, "a", "newer", RENAME_NOREPLACE)


@case("RENAME_EXCHANGE swaps two names, whatever they are")
def exchange(t):
    files.write("f", b"file")
    os.mkdir("d")
    files.write("d/inner", b"inner")
    os.symlink("text", "l")
    rename2("f", "d", RENAME_EXCHANGE)
    eq((files.read("d"), files.read("f/inner")), (b"file", b"inner"))
    rename2("l", "d", RENAME_EXCHANGE)
    eq((os.readlink("d"), files.read("l")), ("text", b"file"))
    eq(names_there(t.host_dir), ["d", "f", "l"])
    eq(host.files.read(t.there("l")), b"file")


@case("RENAME_EXCHANGE needs both names (ENOENT), and not one below the other (EINVAL)")
def exchange_errors(t):
    files.write("f")
    os.makedirs("a/b")
    fails(ENOENT, rename2, "f", "n", RENAME_EXCHANGE)
    fails(ENOENT, rename2, "n", "f", RENAME_EXCHANGE)
    fails(EINVAL, rename2, "a", "a/b", RENAME_EXCHANGE)
    fails((EINVAL, ENOTEMPTY), rename2, "a/b", "a", RENAME_EXCHANGE)
    fails(EINVAL, rename2, "f", "a", RENAME_EXCHANGE | RENAME_NOREPLACE)
    fails(EINVAL, rename2, "f", "a", RENAME_EXCHANGE | RENAME_WHITEOUT)
    fails(EINVAL, rename2, "f", "a", 1 << 10)


@case("exchanging directories of different parents keeps link counts and .. right")
def exchange_directories(t):
    os.makedirs("one/x/deep")
    os.makedirs("two/y")
    files.write("two/z")
    rename2("one/x", "two/y", RENAME_EXCHANGE)
    eq(files.names("two/y"), ["deep"])
    eq(os.stat("two/y/..").st_ino, os.stat("two").st_ino)
    rename2("one/x", "two/z", RENAME_EXCHANGE)
    eq((os.stat("one").st_nlink, os.stat("two").st_nlink), (2, 4))


@case("RENAME_WHITEOUT leaves a whiteout behind: a 0,0 character device", who=[ROOT])
def whiteout(t):
    files.write("f", b"data")
    rename2("f", "g", RENAME_WHITEOUT)
    eq(files.read("g"), b"data")
    status = os.lstat("f")
    eq((stat.S_ISCHR(status.st_mode), status.st_rdev), (True, 0))
    files.write("h", b"other")
    rename2("h", "g", RENAME_WHITEOUT)
    eq(files.read("g"), b"other")
    there = host.os.lstat(t.there("h"))
    eq((stat.S_ISCHR(there.st_mode), there.st_rdev), (True, 0))
    os.unlink("f")
    os.unlink("h")


@case("RENAME_WHITEOUT with NOREPLACE respects both", who=[ROOT])
def whiteout_no_replace(t):
    files.write("f", b"data")
    files.write("g", b"other")
    fails(EEXIST, rename2, "f", "g", RENAME_WHITEOUT | RENAME_NOREPLACE)
    rename2("f", "h", RENAME_WHITEOUT | RENAME_NOREPLACE)
    eq(os.lstat("f").st_rdev, 0)
    eq(files.read("h"), b"data")


@case("rename needs to write both directories, and the directory that changes its parent: EACCES", who=[USER])
def permission(t):
    os.makedirs("from/d")
    os.mkdir("to")
    files.write("from/f")
    os.chmod("to", 0o555)
    fails(EACCES, os.rename, "from/f", "to/f")
    os.chmod("to", 0o755)
    os.chmod("from", 0o555)
    fails(EACCES, os.rename, "from/f", "to/f")
    os.chmod("from", 0o755)
    fails(EACCES, as_user, OTHER, os.rename, t.path("from/f"), t.path("from/g"))
    os.chmod("from/d", 0o555)
    fails(EACCES, os.rename, "from/d", "to/d")
    os.chmod("from/d", 0o755)
    os.rename("from/d", "to/d")


@case("a file that is open goes on under its new name")
def open_file(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"one")
    os.rename("f", "g")
    os.write(fd, b"two")
    os.mkdir("d")
    os.rename("g", "d/h")
    os.write(fd, b"three")
    eq(os.fstat(fd).st_size, 11)
    os.close(fd)
    eq(host.files.read(t.there("d/h")), b"onetwothree")


@case("renaming into a removed directory is ENOENT")
def into_removed(t):
    files.write("f")
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    os.rmdir("d")
    fails(ENOENT, rename2, "f", "g", 0, new_dir=fd)
    os.close(fd)


@case("an atomic replacement never lets a reader miss the name", who=[ROOT])
def never_missing(t):
    files.write("f", b"-1" * 100)
    job = host.background.start(__file__, "replace_often", t.host_dir)
    seen, deadline = set(), time.monotonic() + 40
    # Each of them was there for some time while somebody looked.
    while len(seen) < 20 and time.monotonic() < deadline:
        os.stat("f")
        data = files.read("f")
        eq(data, data[:len(data) // 100] * 100, "whole contents")
        seen.add(data)
    files.write("stop")
    rounds = host.background.finish(job)
    t.note(f"{len(seen)} of {rounds} contents seen")
    true(len(seen) >= 20, f"looked in the middle of replacements: {len(seen)} of {rounds} contents seen")


@on_host
def replace_often(path):
    """Replaces a file until it is told to stop; returns how often."""
    rounds = 0
    while not os.path.exists(f"{path}/stop"):
        files.write(f"{path}/new", str(rounds).encode() * 100)
        os.rename(f"{path}/new", f"{path}/f")
        rounds += 1
    return rounds


@case("EPERM of an append-only or immutable directory reaches the caller", who=[ROOT])
def immutable(t):
    os.mkdir("d")
    files.write("d/f")
    host.run(["chattr", "+i", t.there("d")])
    try:
        fails(EPERM, os.rename, "d/f", "d/g")
        fails((EPERM, EACCES), files.write, "d/h")
    finally:
        host.run(["chattr", "-i", t.there("d")])
