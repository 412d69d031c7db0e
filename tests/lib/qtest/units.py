# SPDX-License-Identifier: GPL-2.0
"""A machine whose pid 1 is systemd, with the project's programs and units where a user puts them; the runner calls these."""

import glob
import os
import shutil

from . import files
from . import offload
from . import process
from .checks import eq, eventually, true
from .filesystems import build_directory, unload_module

UNIT = "qtfs-offload"
WHERE = "/etc/systemd/system"
PID_1 = "/etc/lab/pid-1"


def systemctl(*words, check=True):
    """What systemctl says."""
    return process.run(["systemctl", *words], check=check, patience=400).text


def project():
    """The project's directory."""
    return os.path.dirname(build_directory())


def install(key):
    """Programs and units; systemd and nothing of Debian's own from the next boot on."""
    unload_module()
    offload.prepare(key.encode())
    os.makedirs("/etc/lab", exist_ok=True)
    offload.install()
    for unit in glob.glob(f"{project()}/userspace/*/systemd/*.service"):
        shutil.copy(unit, WHERE)
    for wants in glob.glob(f"{WHERE}/*.wants"):
        shutil.rmtree(wants)
    systemctl("enable", "lab-boot", "lab-agent", UNIT)
    # The console is the kernel's.
    systemctl("mask", "serial-getty@ttyS0")
    os.makedirs("/etc/systemd/system.conf.d", exist_ok=True)
    files.write("/etc/systemd/system.conf.d/lab.conf", b"[Manager]\nShowStatus=no\n")
    os.symlink("/usr/lib/systemd/systemd", PID_1)
    os.sync()


def remove():
    """As it was before, from the next boot on."""
    if os.path.lexists(PID_1):
        os.unlink(PID_1)
    for path in glob.glob(f"{build_directory()}/bin/*"):
        path = f"/usr/bin/{os.path.basename(path)}"
        if os.path.exists(path):
            os.unlink(path)
    os.sync()


def journal():
    """What systemd and the unit have said."""
    return process.run(["journalctl", "-b", "--no-pager", "-n", "60", "-u", UNIT], check=False).text


def show(name):
    """A property of the unit."""
    return systemctl("show", "-P", name, UNIT)


def becomes(condition, what):
    """Waits until condition() is true of the unit."""
    try:
        eventually(condition, 200, what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{UNIT} is {show('ActiveState')}:\n{journal()}") from error


def waits():
    """The unit cannot start yet, and systemd tries again."""
    becomes(lambda: int(show("NRestarts")) >= 1, "systemd has tried more than once")
    text = journal()
    true("10.0.0.1" in text and "Is it up" in text, f"it says whom it waits for:\n{text}")


def is_active():
    """The unit has started, however long it had to wait."""
    becomes(lambda: show("ActiveState") == "active", "it is active")
    offload.offload("status")


def finds_others():
    """The unit of Debian's docker is enabled, and `check` says so; then it is disabled."""
    systemctl("enable", "docker.service")
    try:
        found = offload.offload("check", check=False)
        true(found.status != 0 and "systemctl disable --now docker.service" in found.text, found)
    finally:
        systemctl("disable", "docker.service")
    offload.offload("check")


def restart():
    """As an administrator does."""
    systemctl("restart", UNIT)
    is_active()


def stop():
    """Nothing of it is left."""
    systemctl("stop", UNIT)
    eq(show("ActiveState"), "inactive")
    offload.does_not_run("(engine|udsproxyd)")
    names = offload.commands()
    daemons = {"containerd", "dockerd", "engine", "udsproxyd", "rexec_server", "rexec-agent", "qtfs-offload"}
    eq(sorted(daemons.intersection(names)), [], "programs that still run")
    with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
        eq([line for line in file if line.split(" ")[2] == "qtfs"], [], "mounts that are still there")
