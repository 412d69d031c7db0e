# SPDX-License-Identifier: GPL-2.0
"""The host's side of qtfs: module, engine and policy. Runs on the host (host.server.start())."""

import os
import signal
import time

from . import files
from . import process
from .checks import patience

ADDRESS = "10.0.0.1"
PORT = 12345
POLICY = "/etc/qtfs/engine.toml"
LOG = "/run/qtfs-engine.log"
# What engine says when requests are served.
READY = "serves with"
EXPORTS = (("/data/export", "rw"), ("/data/more", "rw"), ("/data/readonly", "ro"))


def build_directory():
    """Where the modules and programs are."""
    return os.environ.get("QTFS_BUILD", "/qtfs/build")


def loaded():
    """Whether qtfs_server.ko is loaded."""
    return os.path.isdir("/sys/module/qtfs_server")


def load(*parameters):
    """insmod, unless it is loaded."""
    if not loaded():
        parameters = parameters or (f"qtfs_server_ip={ADDRESS}", f"qtfs_server_port={PORT}", "qtfs_log_level=INFO")
        files.remember("qtfs_server", build_directory() + "/qtfs_server.ko")
        process.run(["insmod", build_directory() + "/qtfs_server.ko", *parameters])


def unload():
    """rmmod, if it is loaded."""
    if loaded():
        # The kernel closes what engine had open a moment after it has ended.
        process.run_when_free(["rmmod", "qtfs_server"], 30)


def write_policy(exports=EXPORTS):
    """Writes the policy file; whether it changed."""
    text = "".join(f'[[export]]\npath = "{path}"\nmode = "{mode}"\n\n' for path, mode in exports)
    os.makedirs(os.path.dirname(POLICY), exist_ok=True)
    try:
        with open(POLICY, encoding="utf-8") as file:
            if file.read() == text:
                return False
    except FileNotFoundError:
        pass
    with open(POLICY, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def engines():
    """The ids of the engine processes."""
    return [pid for pid, line in process.processes() if os.path.basename(line.split(" ")[0]) == "engine"]


def start_engine(*arguments, wait=True):
    """Starts engine in the background; returns its id."""
    begun = engine_log().count(READY)
    started = not engines()
    if started:
        files.remember("engine", build_directory() + "/bin/engine")
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                null = os.open("/dev/null", os.O_RDONLY)
                os.dup2(null, 0)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.closerange(3, 1024)
                # A grandchild, so that nobody has to collect it.
                if os.fork():
                    os._exit(0)
                path = build_directory() + "/bin/engine"
                os.execv(path, [path, *arguments])
            finally:
                os._exit(127)
        os.close(log)
        os.waitpid(pid, 0)
    if wait:
        deadline = time.monotonic() + patience(60)
        while not engines() or started and engine_log().count(READY) == begun:
            if time.monotonic() > deadline:
                raise RuntimeError("engine does not run: " + engine_log()[-500:])
            time.sleep(0.02)
    return (engines() or [0])[0]


def stop_engine(number=signal.SIGTERM, seconds=20):
    """Ends engine and waits until it is gone."""
    process.end_all(engines(), number, seconds)


def restart_engine(number, *arguments):
    """Ends engine by a signal and starts another."""
    stop_engine(number)
    start_engine(*arguments)


def engine_threads():
    """How many threads engine has."""
    return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in engines())


def engine_log():
    """What engine has said."""
    try:
        with open(LOG, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def start(exports=EXPORTS, fresh=False):
    """Makes sure that the host serves these directories; fresh replaces what was built anew."""
    for path, _ in exports:
        os.makedirs(path, exist_ok=True)
    module, engine = (files.is_current(name, f"{build_directory()}/{path}") for name, path in
                      (("qtfs_server", "qtfs_server.ko"), ("engine", "bin/engine")))
    if fresh and not (module and engine):
        stop_engine()
        if not module:
            unload()
    load()
    if write_policy(exports):
        stop_engine()
    start_engine()


def stop():
    """Ends engine and unloads the module."""
    stop_engine()
    unload()


def umount(*arguments):
    """umount(8). What the dpu has only read, or listed, is closed here soon after it was closed there, not at once."""
    process.run_when_free(["umount", *arguments], 30)


def share_nfs(path):
    """Exports a directory by NFS; for comparison."""
    os.makedirs(path, exist_ok=True)
    process.run("mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd")
    if process.run("cat /proc/fs/nfsd/threads", check=False).text in ("", "0"):
        process.run("pgrep rpcbind >/dev/null || rpcbind -w; pgrep rpc.mountd >/dev/null || rpc.mountd --no-nfs-version 2 --no-nfs-version 3;"
                    "rpc.nfsd -N 3 -V 4.2 8", check=False)
    process.run(["exportfs", "-o", "rw,no_root_squash,no_subtree_check,fsid=77", f"10.0.0.0/24:{path}"])
