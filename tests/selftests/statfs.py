# SPDX-License-Identifier: GPL-2.0
"""statfs(2): df and stat -f tell the truth about the host's file systems."""

import os
import re
from errno import ENAMETOOLONG, ENOENT

from qtest import ROOT, case, eq, fails, files, host, run, true, within

FIELDS = ("f_bsize", "f_frsize", "f_blocks", "f_files", "f_namemax")


@case("statvfs has the host's numbers: sizes, free blocks, inodes, longest name")
def numbers(t):
    here, there = os.statvfs("."), host.os.statvfs(t.host_dir)
    for field in FIELDS:
        eq(getattr(here, field), getattr(there, field), field)
    for field in ("f_bfree", "f_bavail", "f_ffree"):
        within(getattr(here, field), getattr(there, field) - 1000, getattr(there, field) + 1000, field)


@case("f_type is that of the host's file system")
def kind(t):
    eq(run(["stat", "-f", "-c", "%t %T", "."]).text, host.run(["stat", "-f", "-c", "%t %T", t.host_dir]).text)


@case("below a mount point of the host statfs speaks of that file system", who=[ROOT], needs="two")
def below_mount(t):
    os.mkdir("m")
    host.run(["mount", "-t", "tmpfs", "-o", "size=7M,nr_inodes=500", "tmpfs", t.there("m")])
    try:
        files.write("m/f", b"x" * 100_000)
        here, there = os.statvfs("m/f"), host.os.statvfs(t.there("m"))
        for field in (*FIELDS, "f_bfree", "f_ffree"):
            eq(getattr(here, field), getattr(there, field), field)
        eq(run(["stat", "-f", "-c", "%t", "m"]).text, "1021994")
        true(os.statvfs(".").f_blocks != here.f_blocks, "the outer file system is another")
    finally:
        host.server.umount(t.there("m"))


@case("fstatfs of an open file says the same, statfs of nothing is ENOENT")
def by_descriptor(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    eq(os.fstatvfs(fd).f_blocks, os.statvfs(".").f_blocks)
    os.close(fd)
    fails(ENOENT, os.statvfs, "n")
    fails(ENAMETOOLONG, os.statvfs, "n" * 300)


@case("what is written uses space, what is removed gives it back", who=[ROOT])
def usage(t):
    host.run("sync")
    before = os.statvfs(".").f_bfree
    files.write("f", b"x" * (8 << 20))
    fd = os.open("f", os.O_RDWR)
    os.fsync(fd)
    os.close(fd)
    host.run("sync")
    used = (before - os.statvfs(".").f_bfree) * os.statvfs(".").f_frsize
    within(used, 6 << 20, 40 << 20, "bytes used")


@case("df, findmnt and mountpoint tell the truth about the mount", who=[ROOT], needs="qtfs")
def tools(t):
    found = run(["findmnt", "-n", "-o", "FSTYPE,TARGET", t.fs.mnt]).text.split()
    eq(found, ["qtfs", t.fs.mnt])
    source = run(["findmnt", "-n", "-o", "SOURCE", t.fs.mnt]).text
    true(t.fs.export in source, f"the source {source} names the directory")
    eq(run(["mountpoint", "-q", t.fs.mnt], check=False).status, 0)
    eq(run(["mountpoint", "-q", t.dir], check=False).status, 32)
    here = run(["df", "-k", "--output=size,target", t.dir]).text.splitlines()[1].split()
    there = host.run(["df", "-k", "--output=size", t.host_dir]).text.splitlines()[1].split()
    eq(here, [there[0], t.fs.mnt])
    run(["df", "-i", "."])
    line = [line for line in files.read("/proc/self/mounts").decode().splitlines() if f" {t.fs.mnt} qtfs " in line]
    eq(len(line), 1)
    true(re.search(r"\bserver=10\.0\.0\.1\b|\baddr=10\.0\.0\.1\b", line[0]) or "10.0.0.1" in line[0], f"{line[0]} names the server")


@case("sync and syncfs return with everything on the host", who=[ROOT])
def sync(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"data")
    run(["sync", "-f", "f"])
    eq(host.files.read(t.there("f")), b"data")
    os.write(fd, b"more")
    os.sync()
    eq(host.files.read(t.there("f")), b"datamore")
    os.close(fd)
