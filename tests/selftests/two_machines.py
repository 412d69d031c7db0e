# SPDX-License-Identifier: GPL-2.0
"""Both machines, or two mounts of one, work in the same tree at the same time."""

import os
import stat
from errno import EEXIST, ENOTEMPTY

from qtest import ROOT, case, eq, fails, files, filesystems, host, missing, on_host, run

NEEDS = "posix"


@case("what is done here is seen on the host when the call has returned", needs=NEEDS)
def seen_there(t):
    os.mkdir("d")
    eq(host.os.listdir(t.there("d")), [])
    files.write("d/f", b"data")
    eq(host.files.read(t.there("d/f")), b"data")
    os.rename("d/f", "d/g")
    eq(host.os.listdir(t.there("d")), ["g"])
    os.symlink("g", "d/l")
    eq(host.os.readlink(t.there("d/l")), "g")
    os.link("d/g", "h")
    eq(host.os.stat(t.there("h")).st_nlink, 2)
    os.chmod("h", 0o600)
    eq(oct(stat.S_IMODE(host.os.stat(t.there("h")).st_mode)), oct(0o600))
    os.truncate("h", 2)
    eq(host.files.read(t.there("h")), b"da")
    os.unlink("h")
    eq(host.os.path.lexists(t.there("h")), False)
    fails((ENOTEMPTY, EEXIST), os.rmdir, "d")
    run(["rm", "-r", "d"])
    eq(host.os.listdir(t.host_dir), [])


@case("a write is on the host after close, fsync or msync", needs=NEEDS)
def written_there(t):
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    for number in range(5):
        os.pwrite(fd, b"%d" % number * 5000, 0)
        os.fsync(fd)
        eq(host.files.read(t.there("f")), b"%d" % number * 5000)
    os.pwrite(fd, b"closed", 0)
    os.close(fd)
    eq(host.files.read(t.there("f"), 0, 6), b"closed")


@case("two mounts of the same directory on one machine are one file system's worth", who=[ROOT], needs="qtfs")
def two_mounts(t):
    os.makedirs("/mnt/second", exist_ok=True)
    filesystems.mount(t.fs.export, "/mnt/second")
    try:
        other = os.path.join("/mnt/second", t.name)
        files.write("f", b"one")
        eq(files.read(f"{other}/f"), b"one")
        files.write(f"{other}/f", b"second")
        eq(files.read("f"), b"second")
        fd = os.open("f", os.O_RDONLY)
        files.append(f"{other}/f", b" time")
        eq(os.pread(fd, 20, 0), b"second time")
        os.rename(f"{other}/f", f"{other}/g")
        missing("f")
        eq(files.read("g"), b"second time")
        os.close(fd)
    finally:
        filesystems.umount("/mnt/second")


@case("both machines make and remove names in one directory at once: nothing is lost, nobody gets a wrong error",
      who=[ROOT], limit=120)
def race(t):
    os.mkdir("d")
    job = host.background.start(__file__, "churn", t.there("d"), "host", 100)
    churn.local(t.path("d"), "dpu", 100)
    host.background.finish(job)
    wanted = sorted(f"{who}-kept{number}" for who in ("host", "dpu") for number in range(0, 100, 10))
    eq(sorted(os.listdir("d")), wanted)
    eq(sorted(host.os.listdir(t.there("d"))), wanted)


@on_host
def churn(path, who, count):
    for number in range(count):
        name = f"{path}/{who}{number}"
        os.mkdir(name)
        fails(EEXIST, os.mkdir, name)
        os.rmdir(name)
        files.write(name, b"data")
        os.rename(name, name + "-moved")
        eq(files.read(name + "-moved"), b"data")
        os.unlink(name + "-moved")
        if number % 10 == 0:
            files.write(f"{path}/{who}-kept{number}")


@case("both machines create the same name with O_EXCL: exactly one wins", who=[ROOT], limit=120)
def exclusive_race(t):
    os.mkdir("d")
    job = host.background.start(__file__, "grab", t.there("d"), 60)
    here = grab.local(t.path("d"), 60)
    there = host.background.finish(job)
    eq(sorted(here + there), sorted(f"n{number}" for number in range(60)))


@on_host
def grab(path, count):
    won = []
    for number in range(count):
        try:
            os.close(os.open(f"{path}/n{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            won.append(f"n{number}")
        except FileExistsError:
            pass
    return won
