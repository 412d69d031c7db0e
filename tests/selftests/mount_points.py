# SPDX-License-Identifier: GPL-2.0
"""Mount points of the host: programs say of them on the dpu what they say on the host, from the next system call on."""

import os
from errno import ESTALE, EXDEV

from qtest import ROOT, case, counters, eq, fails, files, filesystems, host, on_host, run, syscalls, true
from qtest.kernelfs import EXPORTS, SYS
from qtest.syscalls import RESOLVE_NO_XDEV, STATX_ATTR_MOUNT_ROOT, openat2



def crossing(path, flags):
    """What openat2 says that is not to cross mount points: 0 or its errno."""
    try:
        os.close(openat2(path, flags, RESOLVE_NO_XDEV))
    except OSError as e:
        return e.errno
    return 0


def seen(top, names):
    """What programs take for mount points below a directory."""
    old = os.getcwd()
    os.chdir(top)
    try:
        found = {}
        for name in names:
            directory = os.path.isdir(name)
            stat, parent = os.stat(name), os.stat(os.path.dirname(name) or ".")
            found[name] = {
                "python": os.path.ismount(name),
                "stat -c %m": os.path.basename(run(["stat", "-c", "%m", name]).text) == os.path.basename(name),
                "device": stat.st_dev == parent.st_dev,
                "statx": bool(syscalls.statx(name).attributes & STATX_ATTR_MOUNT_ROOT),
                "O_PATH": crossing(name, os.O_PATH),
                "O_RDONLY": crossing(name, os.O_RDONLY),
                "inside": crossing(f"{name}/.", os.O_PATH) if directory else None,
            }
        for command in (["find", ".", "-xdev"], ["du", "-axb", "--exclude=kernel", "."]):
            done = run(command)
            found[command[0]] = sorted(line.split("\t")[-1] for line in done.text.splitlines())
        return found
    finally:
        os.chdir(old)


@on_host
def seen_there(top, names):
    """The same on the host."""
    return seen(top, names)


@on_host
def mount_there(*command):
    """mount(8) on the host."""
    run(["mount", *command])


@on_host
def umount_there(*paths):
    """umount(8) on the host."""
    run(["umount", *paths])


NAMES = ("dir", "dir/inner", "other", "file", "bound-file", "bound-dir")


class Tree:
    """Directories and files to mount on, and whether both machines agree on them."""

    def __init__(self, t):
        self.t = t
        for name in ("dir/inner", "other", "bound-dir"):
            os.makedirs(name)
        for name in ("file", "bound-file", "other/content"):
            files.write(name, b"data")

    def agree(self, *roots):
        """Compares, and checks that these and no others are mount points."""
        here = seen(".", NAMES)
        eq(here, seen_there(self.t.host_dir, NAMES))
        eq([name for name in NAMES if here[name]["statx"]], list(roots), "mount points")
        # Names in a mounted directory cannot be reached without crossing it.
        eq([name for name in NAMES if here[name]["O_PATH"] == EXDEV], [name for name in NAMES if {name, os.path.dirname(name)} & {*roots}])


@case("tmpfs, bind mounts of directories and of files come and go", who=[ROOT], needs="qtfs", limit=120)
def come_and_go(t):
    tree = Tree(t)
    there = t.there
    tree.agree()
    try:
        mount_there("-t", "tmpfs", "none", there("dir"))
        host.os.mkdir(there("dir/inner"))
        tree.agree("dir")
        mount_there("--bind", there("other"), there("bound-dir"))
        tree.agree("dir", "bound-dir")
        eq(files.read("bound-dir/content"), b"data")
        mount_there("--bind", there("file"), there("bound-file"))
        tree.agree("dir", "bound-file", "bound-dir")
        mount_there("-t", "tmpfs", "none", there("dir/inner"))
        tree.agree("dir", "dir/inner", "bound-file", "bound-dir")
        umount_there(there("dir/inner"), there("bound-file"))
        tree.agree("dir", "bound-dir")
        # A second one over the first.
        mount_there("-t", "tmpfs", "none", there("dir"))
        host.os.mkdir(there("dir/inner"))
        host.files.write(there("dir/upper"), b"")
        tree.agree("dir", "bound-dir")
        true(os.path.exists("dir/upper"), "the upper one is seen")
        umount_there(there("dir"))
        tree.agree("dir", "bound-dir")
        eq(os.path.exists("dir/upper"), False)
    finally:
        for name in ("dir", "dir", "bound-dir", "bound-file"):
            host.run(["umount", "-R", there(name)], check=False)
    tree.agree()


@case("a file bound over itself is a mount point too", who=[ROOT], needs="qtfs")
def over_itself(t):
    files.write("file", b"data")
    for _ in range(2):
        eq(crossing("file", os.O_RDONLY), 0)
        mount_there("--bind", t.there("file"), t.there("file"))
        try:
            for flags in (os.O_PATH, os.O_RDONLY, os.O_WRONLY | os.O_CREAT):
                eq(crossing("file", flags), EXDEV)
            eq(files.read("file"), b"data")
        finally:
            umount_there(t.there("file"))


@case("a mount below a directory that is open, or a working directory, is seen by the next system call", who=[ROOT], needs="qtfs")
def below_open(t):
    os.makedirs("top/dir")
    files.write("top/dir/below", b"")
    fd = os.open("top", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir("top")
    for _ in range(3):
        eq(os.listdir("dir"), ["below"])
        eq(sorted(os.listdir(fd)), ["dir"])
        mount_there("-t", "tmpfs", "none", t.there("top/dir"))
        try:
            eq(os.listdir("dir"), [])
            true(os.path.ismount("dir"), "by the working directory")
            true(os.stat("dir", dir_fd=fd).st_dev != os.fstat(fd).st_dev, "by the open directory")
            files.write("dir/above", b"")
            eq(host.os.listdir(t.there("top/dir")), ["above"])
        finally:
            umount_there(t.there("top/dir"))
        eq(os.path.ismount("dir"), False)
        eq(os.stat("dir", dir_fd=fd).st_dev, os.fstat(fd).st_dev)
    # What the host has covered is out of reach, as its policy is about names; until it is uncovered.
    os.chdir("dir")
    mount_there("-t", "tmpfs", "none", t.there("top/dir"))
    try:
        fails(ESTALE, os.listdir, ".")
        eq(os.listdir("../dir"), [])
    finally:
        umount_there(t.there("top/dir"))
    eq(os.listdir("."), ["below"])
    os.close(fd)


@case("device numbers stay the same while a file system of the host is mounted", who=[ROOT], needs="qtfs")
def stable(t):
    os.makedirs("dir")
    mount_there("-t", "tmpfs", "none", t.there("dir"))
    try:
        host.os.mkdir(t.there("dir/sub"))
        device = os.stat("dir").st_dev
        run("echo 2 > /proc/sys/vm/drop_caches")
        eq(os.stat("dir/sub").st_dev, device)
        eq(os.stat("dir").st_dev, device)
    finally:
        umount_there(t.there("dir"))


@case("/sys contains what the host has mounted there, with its mount points", who=[ROOT], needs="qtfs")
def sysfs(t):
    host.server.start(EXPORTS)
    os.makedirs(SYS, exist_ok=True)
    filesystems.mount("/sys", SYS, "sys")
    names = [line.split()[1] for line in host.files.read("/proc/mounts").decode().splitlines()]
    names = [name.removeprefix("/sys/") for name in names if name.startswith("/sys/")]
    true("fs/cgroup" in names and "kernel/debug" in names, names)
    here = {name: seen_one(f"{SYS}/{name}") for name in names}
    eq(here, {name: seen_one_there(f"/sys/{name}") for name in names})
    true(all(found == (True, EXDEV) for found in here.values()), here)
    # A mount that comes later.
    mount_there("-t", "tmpfs", "none", "/sys/fs/bpf")
    try:
        host.files.write("/sys/fs/bpf/new", b"")
        eq(seen_one(f"{SYS}/fs/bpf"), (True, EXDEV))
        eq(os.listdir(f"{SYS}/fs/bpf"), ["new"])
    finally:
        umount_there("/sys/fs/bpf")
    eq(seen_one(f"{SYS}/fs/bpf"), seen_one_there("/sys/fs/bpf"))
    filesystems.umount(SYS)
    host.server.start()


def seen_one(path):
    """Whether a directory is a mount point, and what openat2 says."""
    return os.path.ismount(path), crossing(path, os.O_PATH)


@on_host
def seen_one_there(path):
    """The same on the host."""
    return seen_one(path)


@case("findmnt --target names the mount of the dpu that a path is on", who=[ROOT], needs="qtfs")
def findmnt(t):
    os.makedirs("dir/sub")
    command = ["findmnt", "-n", "-o", "TARGET", "--target"]
    wanted = run([*command, "."]).text
    mount_there("-t", "tmpfs", "none", t.there("dir"))
    try:
        # The host's own mounts are not mounts of this machine: mountinfo does not have them.
        for name in ("dir", "."):
            eq(run([*command, name]).text, wanted)
    finally:
        umount_there(t.there("dir"))


@case("looking at a mount point costs no more than looking at a directory", who=[ROOT], needs="qtfs")
def costs(t):
    os.makedirs("dir")
    os.makedirs("plain")
    mount_there("-t", "tmpfs", "none", t.there("dir"))
    try:
        for name in ("plain", "dir"):
            os.stat(name)
            before = counters.read(t.fs.mnt)
            os.stat(name)
            eq((counters.read(t.fs.mnt) - before).waits, 1, name)
    finally:
        umount_there(t.there("dir"))
