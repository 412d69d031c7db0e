# SPDX-License-Identifier: GPL-2.0
"""The command lines of Documentation/offload.md, "By hand", as they are written there."""

import os
import re
import shutil

from qtest import ROOT, case, eq, eventually, files, host, image, offload, on_host, process, server, true
from qtest.filesystems import build_directory, module_loaded, unload_module

MANUAL = True
KEEPS_MOUNTS = True
ROOT_DIRECTORY = "/another_rootfs"
GUIDE = "/qtfs/Documentation/offload.md"
SOCKET = f"unix://{ROOT_DIRECTORY}/run/docker.sock"
LOG = "/run/by-hand.log"


def blocks():
    """The commands for the host and for the dpu."""
    with open(GUIDE, encoding="utf-8") as file:
        section = file.read().partition("## By hand\n")[2].partition("\n## ")[0]
    found = re.findall(r"```sh\n(.*?)```", section, re.S)
    eq(len(found), 2)
    return found


def type_in(commands):
    """Types commands at a shell in the directory of the modules."""
    process.run(f"cd {build_directory()} && set -e\n{commands}", patience=200)


def host_by_hand(key, commands):
    """The host: the key, everything else as typed."""
    server.stop()
    offload.install()
    offload.prepare(key)
    type_in(f"exec >{LOG} 2>&1 </dev/null\n{commands}")
    eventually(lambda: b"listens at" in files.read(LOG) and os.path.exists("/run/qtfs/offload/engine.sock"), 60, "the host serves")


def host_down():
    """Ends what was started by hand."""
    for name in ("engine", "rexec_server"):
        process.end(name)
    server.unload()
    shutil.rmtree("/etc/qtfs")


def set_up(_):
    unload_module()
    key = os.urandom(32)
    offload.install()
    offload.prepare(key)
    there, here = blocks()
    on_host(host_by_hand)(key, there, patience=200)
    offload.root_file_system(ROOT_DIRECTORY)
    image.save(offload.ARCHIVE, offload.IMAGE)
    # The last line is for when dockerd is ready.
    commands, _, last = here.rstrip().rpartition("\n")
    true(last.startswith("docker -H"), last)
    type_in(f"exec >{LOG} 2>&1 </dev/null\n{commands}")
    eventually(lambda: process.run(last, check=False).status == 0, 120, "dockerd is ready")


def tear_down(_):
    for name in ("dockerd", "containerd", "udsproxyd"):
        process.end(name)
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split(" ")[1] for line in file]
    for path in reversed(mounts):
        if path.startswith(ROOT_DIRECTORY):
            process.run(["umount", path], check=False)
    if module_loaded():
        process.run(["rmmod", "qtfs"])
    for path in (ROOT_DIRECTORY, "/srv/upper", "/srv/work", offload.DIRECTORY):
        shutil.rmtree(path)
    on_host(host_down)(patience=100)


def docker(*arguments):
    """docker ARGUMENTS, to the daemon in the other root file system."""
    return process.run(["docker", "-H", SOCKET, *arguments], patience=150)


@case("containers run on the host after the guide's commands, with the host's /proc and /sys in the daemons' root", who=[ROOT], needs={"qtfs", "two"},
      limit=300, only_full=True)
def by_hand(t):
    docker("load", "-i", offload.ARCHIVE)
    before = offload.state()
    eq(docker("run", "--rm", "--network", "none", offload.IMAGE, "cat", "/etc/hello").text, "hello from the upper layer")
    docker("run", "-d", "--name", "hand", "--network", "none", offload.IMAGE, "sleep", "1000")
    pid = docker("inspect", "-f", "{{.State.Pid}}", "hand").text
    eq(host.process.run(["cat", f"/proc/{pid}/comm"]).text, "sleep")
    eq(docker("exec", "hand", "echo", "in there").text, "in there")
    docker("rm", "-f", "hand")
    offload.nothing_left()
    offload.as_before(before)
