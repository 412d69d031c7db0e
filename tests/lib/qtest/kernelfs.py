# SPDX-License-Identifier: GPL-2.0
"""The host's /proc and /sys, mounted on the dpu, for the files that test them."""

import os

from . import counters
from . import filesystems
from . import process
from . import server
from .remote import host

PROC = "/mnt/proc"
SYS = "/mnt/sys"
LOCAL = "/local_proc"
EXPORTS = (*server.EXPORTS, ("/proc", "rw"), ("/sys", "rw"))


def set_up(fs):
    """Server and module; the host exports its /proc and /sys; /local_proc is this machine's."""
    if fs.name != "qtfs":
        return
    host.server.start(EXPORTS, fresh=True)
    filesystems.load_module(fresh=True)
    for path in (PROC, SYS, LOCAL):
        os.makedirs(path, exist_ok=True)
    if not os.path.ismount(LOCAL):
        process.run(["mount", "-t", "proc", "proc", LOCAL])


def tear_down(fs):
    """Nothing stays mounted."""
    if fs.name == "qtfs":
        process.run(["umount", "-l", LOCAL])


def mount_both():
    """Mounts the host's /proc and /sys, until the case ends."""
    filesystems.mount("/proc", PROC, "proc")
    filesystems.mount("/sys", SYS, "sys")


def inside(command, check=True, patience=60):
    """Runs a shell command with the host's /proc and /sys in place of this machine's."""
    script = f"mount --rbind {PROC} /proc && mount --rbind {SYS} /sys && {command}"
    return process.run(["unshare", "-m", "sh", "-c", script], check=check, patience=patience)


class Waits:
    """Counts the round trips that a block waits for."""

    def __init__(self, mountpoint=PROC):
        self.mountpoint = mountpoint

    def __enter__(self):
        self.before = counters.read(self.mountpoint)
        return self

    def __exit__(self, *_):
        self.spent = counters.read(self.mountpoint) - self.before
        self.count = self.spent.waits
