# SPDX-License-Identifier: GPL-2.0
"""What the tests run on: qtfs, or a stand-in to check the tests themselves with."""

import os

from . import files
from . import process
from . import remote
from .remote import host

HOST_ADDRESS = "10.0.0.1"
PORT = 12345


class Local:
    """A directory of this machine; the "host" is this machine too."""

    name = "local"
    provides = {"posix"}

    def __init__(self, options):
        self.mnt = self.export = options.export
        self.extra = options

    def connect(self, channel):
        """Starts what stands for the host."""
        host.channel = remote.LocalAgent()

    def up(self):
        """Makes the file system ready; does nothing when it is."""
        files.fresh_directory(self.mnt)
        os.chmod(self.mnt, 0o755)

    def down(self):
        """The opposite."""


class Nfs(Local):
    """NFSv4.2 between the two machines, without caches of names and attributes."""

    name = "nfs"
    provides = {"two", "lab"}

    def __init__(self, options):
        super().__init__(options)
        self.mnt = options.mnt

    def connect(self, channel):
        host.channel = remote.lab.channel = channel

    def up(self):
        host.server.share_nfs(self.export)
        os.makedirs(self.mnt, exist_ok=True)
        if not os.path.ismount(self.mnt):
            process.run(["mount", "-t", "nfs4", "-o", "noac,lookupcache=none,vers=4.2",
                         f"{HOST_ADDRESS}:{self.export}", self.mnt])

    def down(self):
        if os.path.ismount(self.mnt):
            process.run(["umount", self.mnt])


class Qtfs(Nfs):
    """The file system that all of this is about."""

    name = "qtfs"
    provides = {"two", "lab", "qtfs", "posix"}

    def up(self):
        if not files.is_current("qtfs", build_directory() + "/qtfs.ko"):
            self.down()
        host.server.start(fresh=True)
        host.os.makedirs(self.export, exist_ok=True)
        load_module(fresh=True)
        os.makedirs(self.mnt, exist_ok=True)
        if not os.path.ismount(self.mnt):
            mount(self.export, self.mnt)


KINDS = {kind.name: kind for kind in (Local, Nfs, Qtfs)}


# --- Commands on the dpu that the tests of mounts and modules use too. ---

def build_directory():
    """Where the modules and programs are, on both machines."""
    return os.environ.get("QTFS_BUILD", "/qtfs/build")


def program(name):
    """Where a program of the project is, on both machines."""
    return f"{build_directory()}/bin/{name}"


def module_loaded(name="qtfs"):
    """Whether a module is loaded."""
    return os.path.isdir(f"/sys/module/{name}")


def load_module(*parameters, check=True, fresh=False):
    """insmod qtfs.ko with the parameters of the guide, unless it is loaded; fresh replaces one that was built anew."""
    if fresh and not files.is_current("qtfs", build_directory() + "/qtfs.ko"):
        unload_module()
    if module_loaded():
        return None
    parameters = parameters or (f"qtfs_server_ip={HOST_ADDRESS}", "qtfs_log_level=INFO")
    files.remember("qtfs", build_directory() + "/qtfs.ko")
    return process.run(["insmod", build_directory() + "/qtfs.ko", *parameters], check=check)


def unload_module(check=True):
    """rmmod qtfs, if it is loaded; the daemon that uses it is ended first."""
    if not module_loaded():
        return None
    from . import proxy  # pylint: disable=import-outside-toplevel,cyclic-import
    proxy.stop()
    command = ["rmmod", "qtfs"]
    # What the daemon had open is closed a moment after its end.
    return process.run_when_free(command, 20) if check else process.run(command, check=False)


def mount(source, target, *options, check=True, patience=60, who=None):
    """mount -t qtfs [-o options] source target."""
    command = ["mount", "-t", "qtfs"]
    if options:
        command += ["-o", ",".join(options)]
    return process.run([*command, source, target], check=check, patience=patience, who=who)


def is_mounted(target):
    """As this machine's table of mounts says; a look at the directory might fail, or wait for ever."""
    return f" {target} qtfs " in files.read("/proc/self/mounts").decode()


def umount(target, *options, check=True, patience=60):
    """umount [options] target."""
    return process.run(["umount", *options, target], check=check, patience=patience)
