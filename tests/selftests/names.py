# SPDX-License-Identifier: GPL-2.0
"""What a file may be called: any bytes but / and NUL, up to 255 of them."""

import os
from errno import EBUSY, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY

from qtest import ROOT, case, eq, fails, files, host, missing, on_host, run, true


@on_host
def names_on_host(path):
    return sorted(os.listdir(os.fsencode(path)))


def names_here(path=b"."):
    return sorted(os.listdir(path))


def lives(name):
    """Takes a name through create, stat, list, rename, unlink."""
    files.write(name, b"x")
    eq(os.stat(name).st_size, 1)
    eq(names_here(), [name])
    eq(files.read(name), b"x")
    os.rename(name, b"another")
    missing(name)
    os.rename(b"another", name)
    os.unlink(name)
    missing(name)


@case("a name may hold every byte but / and NUL")
def every_byte(t):
    for first in range(0, 256, 64):
        name = bytes(byte for byte in range(first, first + 64) if byte not in b"\0/")
        lives(name)
        files.write(name, b"x")
        eq(names_on_host(t.host_dir), [name])
        os.unlink(name)


@case("every single byte but / . and NUL is a name of its own")
def single_bytes(t):
    wanted = [bytes([byte]) for byte in range(1, 256) if byte not in b"/."]
    for name in wanted:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    eq(names_here(), sorted(wanted))
    eq(names_on_host(t.host_dir), sorted(wanted))


@case("a name may be 255 bytes long")
def longest(t):
    lives(b"n" * 255)


@case("a name of 256 bytes is ENAMETOOLONG for every call that takes one")
def too_long(t):
    name = "n" * 256
    files.write("file")
    os.mkdir("dir")
    fails(ENAMETOOLONG, os.open, name, os.O_CREAT | os.O_WRONLY)
    fails(ENAMETOOLONG, os.stat, name)
    fails(ENAMETOOLONG, os.mkdir, name)
    fails(ENAMETOOLONG, os.unlink, name)
    fails(ENAMETOOLONG, os.rmdir, name)
    fails(ENAMETOOLONG, os.rename, "file", name)
    fails(ENAMETOOLONG, os.rename, name, "file2")
    fails(ENAMETOOLONG, os.link, "file", name)
    fails(ENAMETOOLONG, os.symlink, "text", name)
    fails(ENAMETOOLONG, os.mkfifo, name)
    fails(ENAMETOOLONG, os.readlink, name)
    fails(ENAMETOOLONG, os.chmod, name, 0o600)
    fails(ENAMETOOLONG, os.stat, f"dir/{name}/below")
    eq(names_here(), [b"dir", b"file"])


@case("a path of 4095 bytes works and one of 4096 is ENAMETOOLONG")
def long_paths(t):
    part = "p" * 200
    top = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(20):
        os.mkdir(part)
        os.chdir(part)
    os.fchdir(top)
    path = "/".join([part] * 20)
    path += "/" + "f" * (4095 - len(path) - 1)
    eq(len(path), 4095)
    files.write(path, b"deep")
    eq(files.read(path), b"deep")
    fails(ENAMETOOLONG, os.stat, path + "x")
    os.close(top)


@case("UTF-8, Latin-1 and bytes that are no encoding at all are kept as they are")
def encodings(t):
    wanted = ["grüße".encode(), "grüße".encode("latin-1"), "名前".encode(), b"\xff\xfe\x80", b"\xc3\x28",
              "e\u0301".encode(), "\u00e9".encode(), "\U0001f600".encode()]
    for name in wanted:
        files.write(name, name)
    eq(names_here(), sorted(wanted))
    eq(names_on_host(t.host_dir), sorted(wanted))
    for name in wanted:
        eq(files.read(name), name)
        eq(host.files.read(os.path.join(os.fsencode(t.host_dir), name)), name)


@case("names that hosts make are seen as they are")
def made_on_host(t):
    wanted = [b"-rf", b" ", b"a b", b"new\nline", b"tab\t", b"\x7f", b"*?[", b"$HOME", b"%2f", b"\\", b"..."]
    for name in wanted:
        host.files.write(os.path.join(os.fsencode(t.host_dir), name), b"")
    eq(names_here(), sorted(wanted))
    for name in wanted:
        eq(os.stat(name).st_size, 0)
        os.unlink(name)
    eq(names_on_host(t.host_dir), [])


@case("names that programs could take for options or patterns work in a shell")
def shell(t):
    run(["sh", "-c", "echo 1 >-n && echo 2 >'*' && echo 3 >'new\nline' && cat ./-n '*' 'new\nline' && rm ./-n '*' 'new\nline'"])
    eq(names_here(), [])


@case("names differ by case")
def case_matters(t):
    files.write("name", b"1")
    files.write("NAME", b"2")
    eq((files.read("name"), files.read("NAME")), (b"1", b"2"))
    eq(names_here(), [b"NAME", b"name"])


@case(". and .. can be neither made nor removed nor renamed")
def dots(t):
    os.mkdir("d")
    fails(EEXIST, os.mkdir, ".")
    fails(EEXIST, os.mkdir, "..")
    fails(EEXIST, os.mkdir, "d/.")
    fails(EINVAL, os.rmdir, "d/.")
    fails((ENOTEMPTY, EBUSY), os.rmdir, "d/..")
    fails((EBUSY, EINVAL), os.rename, "d/.", "e")
    fails((EBUSY, EINVAL), os.rename, "d", "d/..")
    eq(names_here(), [b"d"])


@case("a slash at the end asks for a directory")
def trailing_slash(t):
    files.write("f")
    os.mkdir("d")
    true(os.stat("d/").st_mode, "stat of d/")
    fails(ENOTDIR, os.stat, "f/")
    fails(ENOTDIR, os.unlink, "f/")
    fails(ENOTDIR, os.rename, "f", "g/")
    fails((EISDIR, ENOTDIR), os.open, "new/", os.O_CREAT | os.O_WRONLY)
    os.mkdir("e/")
    os.rename("e/", "g/")
    os.rmdir("g/")
    eq(names_here(), [b"d", b"f"])


@case("an empty name is ENOENT")
def empty(t):
    fails(ENOENT, os.stat, "")
    fails(ENOENT, os.mkdir, "")
    fails(ENOENT, os.unlink, "")
    files.write("f")
    fails(ENOENT, os.rename, "f", "")
    fails(ENOENT, os.symlink, "", "l")


@case("repeated slashes and dots in a path change nothing")
def slashes(t):
    os.makedirs("a/b")
    files.write("a/b/c", b"c")
    for path in ("a//b///c", "./a/./b/./c", "a/b/../b/c", f"{t.dir}/../{os.path.basename(t.dir)}/a/b/c"):
        eq(files.read(path), b"c", path)


@case("what starts with .nfs or .qtfs is a name like any other", who=[ROOT])
def no_reserved_names(t):
    for name in (b".nfs0001", b".qtfs", b".fuse_hidden1", b".#lock", b"lost+found", b"con", b"nul.txt"):
        lives(name)
