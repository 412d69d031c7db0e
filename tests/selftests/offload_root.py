# SPDX-License-Identifier: GPL-2.0
"""`qtfs-offload up` for daemons in a root file system of their own: `root =` in offload.toml."""

import os

from qtest import ROOT, case, eq, files, host, offload, process, true
from qtest.filesystems import build_directory

MANUAL = True
KEEPS_MOUNTS = True
ROOT_DIRECTORY = "/another_rootfs"
CONFIG = f'root = "{ROOT_DIRECTORY}"\n' + offload.CONFIG


def mounts():
    """Where something is mounted below the root directory, or on it."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return [point for point in (line.split(" ")[1] for line in file) if point.startswith(ROOT_DIRECTORY)]


def set_up(_):
    offload.root_file_system(ROOT_DIRECTORY)
    offload.set_up(CONFIG)


def tear_down(_):
    offload.tear_down()
    offload.remove_root_file_system(ROOT_DIRECTORY)


def docker(*arguments):
    """docker ARGUMENTS, to the daemon in the other root file system."""
    return process.run(["docker", "-H", f"unix://{ROOT_DIRECTORY}/run/docker.sock", *arguments], patience=150).text


def inside(*words):
    """A command in the other root file system."""
    return process.run(["chroot", ROOT_DIRECTORY, *words], patience=150).text


@case("daemons in a root file system of their own run containers on the host, and down takes everything away", who=[ROOT], needs={"qtfs", "two"},
      limit=400, only_full=True)
def in_root(t):
    offload.offload("status")
    offload.offload("check")
    docker("load", "-i", offload.ARCHIVE)
    before = offload.state()
    docker("run", "-d", "--name", "in-root", "--network", "none", offload.IMAGE, "sleep", "1000")
    pid = docker("inspect", "-f", "{{.State.Pid}}", "in-root")
    eq(host.process.run(["cat", f"/proc/{pid}/comm"]).text, "sleep")
    # HOST's /proc and /sys are those of the root file system.
    eq(inside("cat", f"/proc/{pid}/comm"), "sleep")
    eq(docker("exec", "in-root", "echo", "in there"), "in there")
    docker("rm", "-f", "in-root")
    files.write(f"{ROOT_DIRECTORY}/tmp/image.tar", files.read(offload.ARCHIVE))
    inside("ctr", "images", "import", "/tmp/image.tar")
    eq(inside("ctr", "run", "--rm", offload.IMAGE, "once", "echo", "from ctr"), "from ctr")
    inside("ctr", "images", "rm", offload.IMAGE)
    offload.nothing_left()
    offload.as_before(before)
    # Everything goes, and comes again.
    offload.offload("down")
    offload.does_not_run("dockerd")
    eq(mounts(), [f"{ROOT_DIRECTORY}/usr"])
    offload.offload("up")
    offload.offload("up")
    eq(docker("ps", "-aq"), "")
    true(os.path.exists(f"{ROOT_DIRECTORY}{build_directory()}/bin/rexec"), "what runs the host's programs is there")
