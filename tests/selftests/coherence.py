# SPDX-License-Identifier: GPL-2.0
"""The host changes the tree that is mounted here: the next system call sees it."""

import os
import stat
from errno import EACCES, EEXIST, EISDIR, ENOENT, ENOTDIR, ESTALE

from qtest import ROOT, USER, case, eq, fails, files, host, missing, true

NEEDS = "posix"


def everywhere(t, name):
    """A name as relative and as absolute path."""
    return (name, t.path(name))


# --- Names ---

@case("host creates: stat, open, listing and O_EXCL here see it", needs=NEEDS)
def create(t):
    for path in everywhere(t, "f"):
        missing(path)
        missing(path)
        host.files.write(t.there("f"), b"data")
        eq(os.stat(path).st_size, 4)
        eq(files.read(path), b"data")
        eq(os.listdir("."), ["f"])
        fails(EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        fails(EEXIST, os.mkdir, path)
        host.os.unlink(t.there("f"))


@case("host unlinks: it is gone here, for every call that takes a name", needs=NEEDS)
def unlink(t):
    calls = [os.stat, os.lstat, files.read, os.unlink, os.readlink, os.listdir, os.listxattr, os.statvfs,
             lambda path: os.chmod(path, 0o600), lambda path: os.truncate(path, 0), lambda path: os.rename(path, "g"),
             lambda path: os.link(path, "g"), lambda path: os.utime(path), lambda path: os.chdir(path)]
    for call in calls:
        files.write("f", b"data")
        os.stat("f")
        files.read("f")
        host.os.unlink(t.there("f"))
        fails(ENOENT, call, "f")
    eq(os.listdir("."), [])
    files.write("f", b"new")
    eq(host.files.read(t.there("f")), b"new")


@case("host renames a file: the old name is gone, the new one is there", needs=NEEDS)
def rename(t):
    files.write("a", b"data")
    number = os.stat("a").st_ino
    host.os.rename(t.there("a"), t.there("b"))
    missing("a")
    eq((os.stat("b").st_ino, files.read("b")), (number, b"data"))
    eq(os.listdir("."), ["b"])


@case("host renames over a file that was read here: the new contents are read", needs=NEEDS)
def rename_over(t):
    for number in range(10):
        text = b"contents %d" % number
        host.files.write(t.there("new"), text)
        host.os.rename(t.there("new"), t.there("f"))
        eq(files.read("f"), text)
        eq(files.read(t.path("f")), text)


@case("host renames a directory above: old paths end in ENOENT, new ones work", needs=NEEDS)
def rename_parent(t):
    os.makedirs("a/b/c")
    files.write("a/b/c/f", b"data")
    eq(files.read("a/b/c/f"), b"data")
    host.os.rename(t.there("a"), t.there("z"))
    fails(ENOENT, os.stat, "a/b/c/f")
    fails(ENOENT, files.read, t.path("a/b/c/f"))
    fails(ENOENT, os.mkdir, "a/b/c/g")
    eq(files.read("z/b/c/f"), b"data")
    host.os.rename(t.there("z/b"), t.there("z/y"))
    fails(ENOENT, os.stat, "z/b/c")
    eq(files.read("z/y/c/f"), b"data")
    eq(os.listdir("z"), ["y"])


@case("host swaps two directories: each path leads to the right one at once", needs=NEEDS)
def swap_directories(t):
    os.makedirs("one/sub")
    os.makedirs("two/sub")
    files.write("one/sub/f", b"one")
    files.write("two/sub/f", b"two")
    for number in range(6):
        host.syscalls.rename2(t.there("one"), t.there("two"), 2)
        here, there = (b"two", b"one") if number % 2 == 0 else (b"one", b"two")
        eq((files.read("one/sub/f"), files.read("two/sub/f")), (here, there))
        eq(files.read(t.path("one/sub/f")), here)


@case("host replaces a directory by a file, a file by a directory, a file by a symlink", needs=NEEDS)
def change_kind(t):
    os.mkdir("x")
    files.write("x/f")
    os.stat("x/f")
    host.files.remove_tree(t.there("x"))
    host.files.write(t.there("x"), b"now a file")
    eq(files.read("x"), b"now a file")
    fails(ENOTDIR, os.stat, "x/f")
    host.os.unlink(t.there("x"))
    host.os.mkdir(t.there("x"))
    true(stat.S_ISDIR(os.stat("x").st_mode), "a directory again")
    fails(ENOENT, os.stat, "x/f")
    fails(EISDIR, os.open, "x", os.O_WRONLY)
    host.os.rmdir(t.there("x"))
    host.os.symlink("target", t.there("x"))
    eq(os.readlink("x"), "target")
    host.files.write(t.there("target"), b"through")
    eq(files.read("x"), b"through")


@case("host replaces a file by a directory: a path that ends in a slash leads to it", needs=NEEDS)
def slash(t):
    for number, ask in enumerate((os.stat, os.listdir, os.statvfs, lambda path: os.open(path, os.O_RDONLY), os.chdir)):
        name = t.path(f"n{number}")
        files.write(name, b"data")
        fails(ENOTDIR, ask, f"{name}/")
        host.os.unlink(t.there(f"n{number}"))
        host.os.mkdir(t.there(f"n{number}"))
        ask(f"{name}/")


@case("stat that fails although the name is there leaves nothing behind that is old for the next fstat", needs=NEEDS)
def failed_stat(t):
    for known in (True, False):
        host.files.write(t.there("f"), b"data")
        fd = os.open("f", os.O_RDONLY)
        if not known:
            host.os.rename(t.there("f"), t.there("g"))
        fails(ENOTDIR, os.stat, "f/" if known else "g/")
        host.files.append(t.there("f" if known else "g"), b" and more")
        eq(os.fstat(fd).st_size, 13)
        os.close(fd)


@case("host removes and makes a directory again: the new one is used, with its own inode", who=[ROOT], needs=NEEDS)
def same_name_again(t):
    for number in range(5):
        host.os.mkdir(t.there("d"))
        host.files.write(t.there(f"d/f{number}"), b"%d" % number)
        eq(os.listdir("d"), [f"f{number}"])
        eq(os.stat("d").st_ino, host.os.stat(t.there("d")).st_ino)
        files.write("d/mine", b"x")
        eq(host.os.path.exists(t.there("d/mine")), True)
        host.files.remove_tree(t.there("d"))
        missing("d")


@case("host changes a symlink's text: the next path walk follows it", needs=NEEDS)
def retarget(t):
    host.files.write(t.there("one"), b"1")
    host.files.write(t.there("two"), b"2")
    host.os.symlink("one", t.there("l"))
    for number in range(6):
        target = ("two", "one")[number % 2]
        eq(os.readlink("l"), ("one", "two")[number % 2])
        host.os.unlink(t.there("l"))
        host.os.symlink(target, t.there("l"))
        eq(files.read("l"), {"one": b"1", "two": b"2"}[target])
        eq(os.readlink("l"), target)


@case("the ..data swap of Kubernetes' volumes: never a missing or mixed version", who=[ROOT], needs=NEEDS)
def data_swap(t):
    host.call(__file__, "publish", t.host_dir, 0)
    host.os.symlink("..data/config", t.there("config"))
    host.os.symlink("..data/key", t.there("key"))
    for version in range(1, 12):
        host.call(__file__, "publish", t.host_dir, version)
        eq((files.read("config"), files.read("key")), (b"config %d" % version, b"key %d" % version))
        eq(os.listdir("..data/"), host.os.listdir(t.there("..data/")))


def publish(top, version):
    """As the kubelet's atomic writer does it."""
    os.mkdir(f"{top}/..version{version}")
    files.write(f"{top}/..version{version}/config", b"config %d" % version)
    files.write(f"{top}/..version{version}/key", b"key %d" % version)
    old = os.readlink(f"{top}/..data") if os.path.lexists(f"{top}/..data") else None
    os.symlink(f"..version{version}", f"{top}/..data_tmp")
    os.rename(f"{top}/..data_tmp", f"{top}/..data")
    if old:
        files.remove_tree(f"{top}/{old}")


# --- Attributes ---

@case("host changes mode, owner, times, links: stat here shows it", who=[ROOT], needs=NEEDS)
def attributes(t):
    files.write("f", b"data")
    fd = os.open("f", os.O_RDONLY)
    for mode in (0o600, 0o644, 0o4755, 0o000):
        host.os.chmod(t.there("f"), mode)
        eq(oct(stat.S_IMODE(os.stat("f").st_mode)), oct(mode))
        eq(oct(stat.S_IMODE(os.fstat(fd).st_mode)), oct(mode))
    host.os.chown(t.there("f"), 1001, 1002)
    eq((os.stat("f").st_uid, os.fstat(fd).st_gid), (1001, 1002))
    host.os.utime(t.there("f"), (5, 6))
    eq((os.stat("f").st_mtime, os.fstat(fd).st_atime), (6, 5))
    host.os.link(t.there("f"), t.there("g"))
    eq((os.stat("f").st_nlink, os.fstat(fd).st_nlink), (2, 2))
    os.close(fd)


@case("host makes a directory unreadable: the next call here is refused", who=[USER], needs=NEEDS)
def directory_mode(t):
    os.mkdir("d")
    files.write("d/f", b"data")
    os.stat("d/f")
    host.os.chmod(t.there("d"), 0o000)
    fails(EACCES, os.stat, "d/f")
    fails(EACCES, os.listdir, "d")
    host.os.chmod(t.there("d"), 0o755)
    eq(files.read("d/f"), b"data")


# --- Contents ---

@case("host rewrites with the same size, within the same second: the new bytes are read", needs=NEEDS)
def rewrite(t):
    files.write("f", b"0000")
    fd = os.open("f", os.O_RDONLY)
    for number in range(1, 15):
        host.files.write_at(t.there("f"), 0, b"%04d" % number)
        eq(files.read("f"), b"%04d" % number)
        eq(os.pread(fd, 4, 0), b"%04d" % number, "through a file that was open before")
    os.close(fd)


@case("host rewrites with the same size and sets the old times: the new bytes are read", needs=NEEDS)
def rewrite_same_times(t):
    files.write("f", b"old!")
    os.utime("f", (1000, 1000))
    eq(files.read("f"), b"old!")
    host.files.write_at(t.there("f"), 0, b"new!")
    host.os.utime(t.there("f"), (1000, 1000))
    eq(files.read("f"), b"new!")


@case("host appends: a file open here reads on, and stat shows the size", needs=NEEDS)
def append(t):
    files.write("f", b"start")
    fd = os.open("f", os.O_RDONLY)
    size = 5
    eq(os.pread(fd, 100, 0), b"start")
    for number in range(10):
        host.files.append(t.there("f"), b"%d" % number * 500)
        size += 500
        eq(os.fstat(fd).st_size, size)
        eq(os.stat("f").st_size, size)
        eq(os.pread(fd, 600, size - 500), b"%d" % number * 500)
        eq(os.lseek(fd, 0, os.SEEK_END), size)
    os.close(fd)


@case("host truncates: a file open here is shorter, and grows with zeros", needs=NEEDS)
def truncate(t):
    files.write("f", b"x" * 10000)
    fd = os.open("f", os.O_RDWR)
    eq(len(os.pread(fd, 20000, 0)), 10000)
    host.os.truncate(t.there("f"), 100)
    eq(os.pread(fd, 20000, 0), b"x" * 100)
    eq(os.fstat(fd).st_size, 100)
    host.os.truncate(t.there("f"), 9000)
    eq(os.pread(fd, 20000, 0), b"x" * 100 + bytes(8900))
    os.close(fd)


@case("host truncates: whoever reads behind the new end of a file that is open here reads nothing, not zeros", needs=NEEDS)
def truncate_read(t):
    for size, offset, length in ((1 << 20, 8192, 4096), (4 << 20, 1 << 20, 2 << 20), (1 << 20, 50, 200_000)):
        host.files.write(t.there("f"), b"x" * size)
        fd = os.open("f", os.O_RDONLY)
        eq(os.fstat(fd).st_size, size)
        host.os.truncate(t.there("f"), 100)
        eq(os.pread(fd, length, offset), b"x" * max(0, 100 - offset), f"{length} bytes at {offset} of {size}")
        eq(os.fstat(fd).st_size, 100)
        os.close(fd)


@case("host changes one page of a large file that was read here", who=[ROOT], needs=NEEDS)
def one_page(t):
    data = bytearray(files.pattern(1 << 20))
    files.write("f", data)
    fd = os.open("f", os.O_RDONLY)
    eq(files.read_all(fd), bytes(data))
    for place in (0, 500_000, (1 << 20) - 10):
        host.files.write_at(t.there("f"), place, b"CHANGED!")
        data[place:place + 8] = b"CHANGED!"
        eq(os.pread(fd, 8, place), b"CHANGED!")
    true(files.read_all(fd) == bytes(data), "the whole file is right")
    os.close(fd)


# --- Mounts on the host ---

@case("host mounts and unmounts below the share: seen at once, also in a directory that is open", who=[ROOT], needs="two")
def mounts(t):
    os.mkdir("m")
    files.write("m/below", b"below")
    eq(files.read("m/below"), b"below")
    outer = os.open("m", os.O_RDONLY)
    for number in range(3):
        host.run(["mount", "-t", "tmpfs", "tmpfs", t.there("m")])
        fails(ENOENT, os.stat, "m/below")
        eq(os.listdir("m"), [])
        host.files.write(t.there("m/inner"), b"%d" % number)
        eq(files.read("m/inner"), b"%d" % number)
        eq(os.path.ismount("m"), True)
        files.write("m/from-here", b"x")
        host.server.umount(t.there("m"))
        fails(ENOENT, os.stat, "m/inner")
        eq(files.read("m/below"), b"below")
        eq(os.listdir("m"), ["below"])
        eq(os.path.ismount("m"), False)
    os.close(outer)


@case("a file that was written and closed here is closed on the host", who=[ROOT], needs="two")
def closed(t):
    program = b"#!/bin/sh\necho ran\n"
    for number, size in enumerate((0, 10, 5000, 3 << 20)):
        for flags in (os.O_WRONLY, os.O_RDWR):
            name = f"f{number}-{flags}"
            fd = os.open(name, flags | os.O_CREAT, 0o755)
            os.write(fd, program + b"#" * size)
            if size == 5000:
                os.fsync(fd)
            other = os.dup(fd)
            os.close(fd)
            os.write(other, b"\n")
            os.close(other)
            # ETXTBSY while anybody has it open for writing.
            eq(host.run([t.there(name)]).text, "ran", name)


@case("the host can unmount a file system that the dpu has looked at: never busy", who=[ROOT], needs="qtfs")
def umount_not_busy(t):
    os.mkdir("m")
    host.run(["mount", "-t", "tmpfs", "tmpfs", t.there("m")])
    host.os.makedirs(t.there("m/a/b"))
    host.files.write(t.there("m/a/b/f"), b"data")
    eq(files.read("m/a/b/f"), b"data")
    os.listdir("m/a")
    os.chdir("m/a/b")
    host.server.umount(t.there("m"))
    fails((ENOENT, ESTALE), os.stat, "f")
    os.chdir(t.dir)


# --- Listings ---

@case("a directory that was opened a while ago is listed as it is now, and again after rewinddir", needs=NEEDS)
def opened_before(t):
    os.mkdir("d")
    host.os.mkdir(t.there("d/old"))
    for flags in (os.O_NONBLOCK, 0):
        fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY | flags)
        host.os.rename(t.there("d/old"), t.there("d/between"))
        host.os.mkdir(t.there("d/between/deep"))
        eq(os.listdir(fd), ["between"])
        eq((os.stat("d/between").st_nlink, os.fstat(fd).st_ino), (3, os.stat("d").st_ino))
        host.os.rmdir(t.there("d/between/deep"))
        host.os.rmdir(t.there("d/between"))
        eq(os.listdir(fd), [])
        host.os.mkdir(t.there("d/old"))
        eq(os.listdir(fd), ["old"])
        os.close(fd)


@case("fstat of a directory that was opened shows what was changed since, here and there", needs=NEEDS)
def opened_and_changed(t):
    os.mkdir("d")
    for change in (host.os.mkdir, lambda path: os.mkdir("d/here")):
        fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
        links = os.fstat(fd).st_nlink
        change(t.there("d/there"))
        eq(os.fstat(fd).st_nlink, links + 1)
        os.close(fd)


@case("what is known of a directory's entries goes on working when it is opened and not listed", who=[ROOT], needs=NEEDS)
def opened_for_nothing(t):
    host.files.make_many(t.host_dir, 300)
    held = [os.open(f"f{number}", os.O_RDONLY) for number in range(10)]
    for flags in (os.O_NONBLOCK, 0, os.O_NONBLOCK):
        os.close(os.open(".", os.O_RDONLY | os.O_DIRECTORY | flags))
    for number, fd in enumerate(held):
        host.os.rename(t.there(f"f{number}"), t.there(f"g{number}"))
        eq(os.fstat(fd).st_ino, os.stat(f"g{number}").st_ino)
        os.fchmod(fd, 0o640)
        os.close(fd)
    eq(len(os.listdir(".")), 300)


# --- Working directories ---

def opened(name, flags=0):
    """What is in a directory that is opened."""
    fd = os.open(name, os.O_RDONLY | flags)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def opened_as_directory(name):
    """The same, when it must be one."""
    return opened(name, os.O_DIRECTORY)


def gone_to(name):
    """What is in a directory once it is the working directory."""
    start = os.getcwd()
    os.chdir(name)
    try:
        return os.listdir(".")
    finally:
        os.chdir(start)


@case("host renames, replaces, removes and covers a directory: it is opened and gone to as it is now", who=[ROOT], needs="two")
def known_directory(t):
    for way in (opened, opened_as_directory, gone_to):
        host.os.makedirs(t.there(f"{way.__name__}/d/one"))
        name, there = t.path(f"{way.__name__}/d"), t.there(f"{way.__name__}/d")
        other, other_there = t.path(f"{way.__name__}/e"), t.there(f"{way.__name__}/e")
        eq(way(name), ["one"])
        host.os.rename(there, other_there)
        host.os.makedirs(f"{there}/two")
        eq((way(name), way(other), way(name)), (["two"], ["one"], ["two"]))
        host.os.rename(there, f"{there}-away")
        fails(ENOENT, way, name)
        host.files.write(there, b"")
        fails(ENOTDIR, way, name)
        host.os.unlink(there)
        host.os.symlink("e", there)
        eq(way(name), ["one"])
        host.os.unlink(there)
        host.os.makedirs(f"{there}/three")
        eq(way(name), ["three"])
        host.run(["mount", "-t", "tmpfs", "tmpfs", there])
        host.os.mkdir(f"{there}/four")
        eq((way(name), way(name)), (["four"], ["four"]))
        host.server.umount(there)
        eq(way(name), ["three"])


def looks_at(path):
    """Asks all there is to ask of a directory or file by its path."""
    os.chmod(path, 0o750)
    os.utime(path, (1, 2))
    os.setxattr(path, "user.x", b"y")
    eq((os.getxattr(path, "user.x"), os.listxattr(path)), (b"y", ["user.x"]))
    os.removexattr(path, "user.x")
    eq(os.access(path, os.R_OK), True)
    os.statvfs(path)
    status = os.stat(path)
    eq((oct(stat.S_IMODE(status.st_mode)), status.st_mtime), (oct(0o750), 2))
    return status.st_ino


@case("a working directory, and the one above it, that the host renames can be asked everything by . and ..", needs=NEEDS)
def working_directory_asked(t):
    os.makedirs("a/b/c")
    inodes = [os.stat("a/b/c").st_ino, os.stat("a/b").st_ino]
    os.chdir("a/b/c")
    for old, new in (("a", "z"), ("z/b", "y")):
        host.os.rename(t.there(old), t.there(new))
        eq([looks_at("."), looks_at("..")], inodes)
        eq([looks_at(".."), looks_at(".")], [inodes[1], inodes[0]])
        os.chdir(".")
        eq(os.listdir("."), [])
    os.chdir("..")
    eq(os.listdir("."), ["c"])


@case("an open file that the host renames or replaces can be asked everything by /proc/self/fd", needs=NEEDS)
def open_file_asked(t):
    files.write("f", b"data")
    here = os.open(".", os.O_RDONLY)
    fd = os.open("f", os.O_RDONLY)
    path, inode = f"/proc/self/fd/{fd}", os.fstat(fd).st_ino
    host.os.rename(t.there("f"), t.there("g"))
    eq(looks_at(path), inode)
    host.files.write(t.there("f"), b"another")
    eq(looks_at(path), inode)
    os.link(path, "h", src_dir_fd=here, follow_symlinks=True)
    eq((os.stat("h").st_ino, os.stat("f").st_size, looks_at(path)), (inode, 7, inode))
    os.close(fd)
    os.close(here)


@case("what a path led to only before the host renamed it is not taken for what has its next name later", needs=NEEDS)
def second_try(t):
    for number, ask in enumerate((os.stat, opened, gone_to, os.statvfs)):
        top = f"{number}"
        os.makedirs(f"{top}/d/first")
        ask(f"{top}/d")
        host.os.rename(t.there(f"{top}/d"), t.there(f"{top}/e"))
        host.os.mkdir(t.there(f"{top}/d"))
        ask(f"{top}/d")
        eq(os.listdir(f"{top}/e"), ["first"])
        host.os.rename(t.there(f"{top}/e"), t.there(f"{top}/f"))
        host.os.makedirs(t.there(f"{top}/e/second"))
        inode = host.os.stat(t.there(f"{top}/e")).st_ino
        if ask is os.stat:
            eq(os.stat(f"{top}/e").st_ino, inode)
        elif ask is not os.statvfs:
            eq(ask(f"{top}/e"), ["second"])
        eq(os.stat(f"{top}/e").st_ino, inode)


@case("a working directory that the host renames goes on working", needs=NEEDS)
def working_directory(t):
    os.makedirs("a/b")
    files.write("a/b/f", b"data")
    os.chdir("a/b")
    eq(files.read("f"), b"data")
    host.os.rename(t.there("a"), t.there("z"))
    eq(files.read("f"), b"data")
    files.write("g", b"new")
    eq(host.files.read(t.there("z/b/g")), b"new")
    host.os.rename(t.there("z/b"), t.there("y"))
    eq(sorted(os.listdir(".")), ["f", "g"])
    os.mkdir("sub")
    os.rename("f", "sub/f")
    eq(host.files.read(t.there("y/sub/f")), b"data")
    eq(files.read(t.path("y/sub/f")), b"data")


@case("an open directory that the host renames goes on working with *at calls", needs=NEEDS)
def open_directory(t):
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    host.os.rename(t.there("d"), t.there("e"))
    inner = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(inner, b"data")
    os.close(inner)
    eq(host.files.read(t.there("e/f")), b"data")
    os.mkdir("s", dir_fd=fd)
    eq(sorted(os.listdir(fd)), ["f", "s"])
    os.unlink("f", dir_fd=fd)
    os.rmdir("s", dir_fd=fd)
    eq(os.fstat(fd).st_ino, host.os.stat(t.there("e")).st_ino)
    os.close(fd)


@case("a file that the host renames stays readable and writable where it is open here", needs=NEEDS)
def open_file(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"one")
    host.os.rename(t.there("f"), t.there("g"))
    os.write(fd, b"two")
    os.fsync(fd)
    eq(host.files.read(t.there("g")), b"onetwo")
    eq(os.fstat(fd).st_size, 6)
    os.fchmod(fd, 0o640)
    eq(oct(stat.S_IMODE(host.os.stat(t.there("g")).st_mode)), oct(0o640))
    os.close(fd)


@case("a write that covers a part of a block leaves what the host has changed beside it alone", needs=NEEDS)
def part_of_block(t):
    files.write("f", b"a" * 8192)
    fd = os.open("f", os.O_RDWR)
    eq(os.pread(fd, 8192, 0), b"a" * 8192)
    host.files.write_at(t.there("f"), 100, b"host")
    os.pwrite(fd, b"here", 200)
    os.fsync(fd)
    host.files.write_at(t.there("f"), 5000, b"HOST")
    os.pwrite(fd, b"HERE", 4090)
    os.close(fd)
    want = bytearray(b"a" * 8192)
    want[100:104], want[200:204], want[4090:4094], want[5000:5004] = b"host", b"here", b"HERE", b"HOST"
    eq(host.files.read(t.there("f")), bytes(want))


@case("lstat of a symlink that was followed before is as new as any", needs=NEEDS, who=[ROOT])
def followed_symlink(t):
    files.write("f", b"data")
    os.symlink("f", "l")
    eq(os.stat("l").st_size, 4)
    host.os.chown(t.there("l"), 1001, 1002, follow_symlinks=False)
    eq((os.lstat("l").st_uid, os.lstat("l").st_gid), (1001, 1002))


@case("extended attributes that the host sets are seen while the directory is listed", needs=NEEDS)
def xattr_while_listed(t):
    files.write("f", b"data")
    listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    eq(os.listdir(listing), ["f"])
    eq(os.listxattr("f"), [])
    host.os.setxattr(t.there("f"), "user.new", b"value")
    eq((os.listxattr("f"), os.getxattr("f", "user.new")), (["user.new"], b"value"))
    os.close(listing)


@case("access(2) of a name that the host has given to another file, whose own name was known too", needs=NEEDS, who=[ROOT])
def replaced_by_known(t):
    for name in ("a", "b"):
        files.write(name, name.encode())
        os.stat(name)
    host.os.rename(t.there("b"), t.there("a"))
    true(os.access("a", os.R_OK), "it can be read")
    eq(files.read("a"), b"b")
