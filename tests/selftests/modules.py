# SPDX-License-Identifier: GPL-2.0
"""Loading and unloading both modules, and their parameters."""

import os
from errno import EINVAL

from qtest import (ROOT, case, eq, eventually, fails, files, filesystems, host, kernellog, on_host, process, run, server, true)

# The cases load and unload.
MANUAL = True
TOP = "/mnt/modules"
EXPORT = "/data/export/modules"
PARAMETERS = "/sys/module/qtfs/parameters"


def set_up(fs):
    """A server; the client's module is the cases' business."""
    if fs.name == "qtfs":
        host.server.start(fresh=True)
        host.files.fresh_directory(EXPORT)
        host.files.write(f"{EXPORT}/f", b"data")
        os.makedirs(TOP, exist_ok=True)


def tear_down(fs):
    """What other files expect."""
    if fs.name == "qtfs":
        filesystems.unload_module()
        host.server.start()


def parameter(name):
    """The value of a parameter."""
    return files.read(f"{PARAMETERS}/{name}").decode().strip()


def reload_module(*parameters):
    """The module anew."""
    filesystems.unload_module()
    filesystems.load_module(*parameters)


def refused(words, *parameters):
    """insmod must fail, and the log say why."""
    filesystems.unload_module()
    kernellog.begin()
    done = filesystems.load_module(*parameters, check=False)
    true(done.status != 0, f"insmod with {parameters} fails")
    eq(filesystems.module_loaded(), False)
    said = "\n".join(kernellog.since())
    for word in words:
        true(word in said, f"{word!r} in:\n{said}")


@case("insmod with the guide's parameters, mount, use, umount, rmmod", who=[ROOT], needs="qtfs")
def guide(t):
    filesystems.unload_module()
    run(["insmod", filesystems.build_directory() + "/qtfs.ko", "qtfs_server_ip=10.0.0.1", "qtfs_log_level=INFO"])
    run(["mount", "-t", "qtfs", EXPORT, TOP])
    eq(files.read(f"{TOP}/f"), b"data")
    run(["umount", TOP])
    run(["rmmod", "qtfs"])
    eq(filesystems.module_loaded(), False)


@case("the parameters have their defaults, and show what was given", who=[ROOT], needs="qtfs")
def parameters_shown(t):
    filesystems.unload_module()
    run(["insmod", filesystems.build_directory() + "/qtfs.ko", "qtfs_server_ip=10.0.0.1"])
    eq(parameter("qtfs_server_port"), "12345")
    eq(parameter("qtfs_log_level"), "WARN")
    reload_module("qtfs_server_ip=10.0.0.9", "qtfs_server_port=4242", "qtfs_log_level=ERROR")
    eq([parameter(name) for name in ("qtfs_server_ip", "qtfs_server_port", "qtfs_log_level")], ["10.0.0.9", "4242", "ERROR"])


@case("mount options server= and port= override the parameters", who=[ROOT], needs="qtfs")
def override(t):
    reload_module("qtfs_server_ip=10.0.0.9", "qtfs_server_port=4242")
    filesystems.mount(EXPORT, TOP, "server=10.0.0.1", "port=12345")
    eq(files.read(f"{TOP}/f"), b"data")
    filesystems.umount(TOP)


@case("wrong values are refused by insmod, with a line that names them", who=[ROOT], needs="qtfs")
def wrong_values(t):
    refused(["qtfs_server_port=0", "1 to 65535"], "qtfs_server_ip=10.0.0.1", "qtfs_server_port=0")
    refused(["qtfs_server_port=65536"], "qtfs_server_ip=10.0.0.1", "qtfs_server_port=65536")
    refused(["qtfs_server_port=http"], "qtfs_server_ip=10.0.0.1", "qtfs_server_port=http")
    refused(["qtfs_log_level=LOUD", "ERROR, WARN, INFO or DEBUG"], "qtfs_server_ip=10.0.0.1", "qtfs_log_level=LOUD")
    refused(["qtfs_server_ip"], "qtfs_server_ip=" + "1" * 100)


@case("a wrong address is named by the mount that needs it", who=[ROOT], needs="qtfs")
def wrong_address(t):
    reload_module("qtfs_server_ip=nowhere.example")
    kernellog.begin()
    done = filesystems.mount(EXPORT, TOP, check=False)
    said = done.complaint + "\n".join(kernellog.since())
    true(done.status != 0 and "nowhere.example" in said and "qtfs_server_ip" in said, said)
    filesystems.mount(EXPORT, TOP, "server=10.0.0.1")
    filesystems.umount(TOP)


@case("the log level can be changed at run time; wrong ones are EINVAL", who=[ROOT], needs="qtfs")
def log_level(t):
    reload_module("qtfs_server_ip=10.0.0.1")

    def said_by_mount():
        kernellog.begin()
        filesystems.mount(EXPORT, TOP)
        os.stat(f"{TOP}/f")
        filesystems.umount(TOP)
        return [line for line in kernellog.since() if "qtfs:" in line]

    files.write(f"{PARAMETERS}/qtfs_log_level", b"ERROR")
    eq(said_by_mount(), [])
    files.write(f"{PARAMETERS}/qtfs_log_level", b"DEBUG\n")
    eq(parameter("qtfs_log_level"), "DEBUG")
    loud = len(said_by_mount())
    files.write(f"{PARAMETERS}/qtfs_log_level", b"INFO")
    quiet = len(said_by_mount())
    true(loud > quiet > 0, f"DEBUG says more ({loud}) than INFO ({quiet})")
    fails(EINVAL, files.write, f"{PARAMETERS}/qtfs_log_level", b"LOUD")
    eq(parameter("qtfs_log_level"), "INFO")
    files.write(f"{PARAMETERS}/qtfs_log_level", b"WARN")


@case("rmmod is refused while something is mounted, also lazily unmounted", who=[ROOT], needs="qtfs")
def in_use(t):
    reload_module("qtfs_server_ip=10.0.0.1")
    filesystems.mount(EXPORT, TOP)
    true(filesystems.unload_module(check=False).status != 0, "refused while mounted")
    fd = os.open(f"{TOP}/f", os.O_RDONLY)
    filesystems.umount(TOP, "-l")
    true(filesystems.unload_module(check=False).status != 0, "refused while a file is open")
    eq(os.read(fd, 10), b"data")
    os.close(fd)
    eventually(lambda: filesystems.unload_module(check=False).status == 0, 10, "unloaded after the last close")


@case("insmod and rmmod ten times, with a mount in between, leave nothing behind", who=[ROOT], needs="qtfs", limit=120)
def ten_times(t):
    for _ in range(10):
        filesystems.load_module()
        filesystems.mount(EXPORT, TOP)
        eq(files.read(f"{TOP}/f"), b"data")
        filesystems.umount(TOP)
        filesystems.unload_module()
    true("qtfs" not in files.read("/proc/filesystems").decode().split(), "not in /proc/filesystems")
    true(not [line for line in files.read("/proc/slabinfo").decode().splitlines() if line.startswith("qtfs")], "no slab caches")


@case("rmmod at once after umount of a busy mount", who=[ROOT], needs="qtfs", limit=120)
def quick_unload(t):
    for _ in range(3):
        filesystems.load_module()
        filesystems.mount(EXPORT, TOP)
        children = [process.spawn(stat_and_read, 50) for _ in range(3)]
        for child in children:
            child.result(60)
        filesystems.umount(TOP)
        run(["rmmod", "qtfs"])


def stat_and_read(times):
    for _ in range(times):
        os.stat(f"{TOP}/f")
        files.read(f"{TOP}/f")
        os.listdir(TOP)


# --- The server's module. ---

@on_host
def server_round():
    """Unloads and loads the server's module, with engine."""
    server.stop_engine()
    server.unload()
    if os.path.exists("/dev/qtfs_server"):
        raise RuntimeError("/dev/qtfs_server is still there")
    server.start()


@case("qtfs_server.ko: rmmod is refused while engine runs; insmod and rmmod ten times", who=[ROOT], needs="qtfs", limit=120)
def server_module(t):
    filesystems.unload_module()
    true(host.run(["rmmod", "qtfs_server"], check=False).status != 0, "refused while engine runs")
    for _ in range(10):
        server_round()
    filesystems.load_module()
    filesystems.mount(EXPORT, TOP)
    eq(files.read(f"{TOP}/f"), b"data")
    filesystems.umount(TOP)


@case("qtfs_server.ko: wrong parameters are refused, and named in the log", who=[ROOT], needs="qtfs")
def server_parameters(t):
    host.server.stop_engine()
    host.server.unload()
    try:
        for parameters, words in ((["qtfs_server_ip=nowhere"], ["nowhere"]), (["qtfs_server_port=70000"], ["70000"]),
                                  (["qtfs_server_ip=10.0.0.1", "qtfs_log_level=LOUD"], ["LOUD"]), (["qtfs_server_ip=10.9.9.9"], ["10.9.9.9"])):
            host.kernellog.begin()
            done = host.run(["insmod", filesystems.build_directory() + "/qtfs_server.ko", *parameters], check=False)
            true(done.status != 0, f"insmod with {parameters} fails")
            said = "\n".join(host.kernellog.since())
            for word in words:
                true(word in said, f"{word!r} in:\n{said}")
            eq(host.os.path.exists("/sys/module/qtfs_server"), False)
    finally:
        host.server.start()


@case("qtfs_server.ko: a port that is taken is refused, and named", who=[ROOT], needs="qtfs")
def server_port_taken(t):
    host.server.stop_engine()
    host.server.unload()
    job = host.background.start("qtest.files", "listen_for_ever", "10.0.0.1", 12345)
    try:
        eventually(lambda: ":3039 00000000:0000 0A" in host.files.read("/proc/net/tcp").decode())
        host.kernellog.begin()
        done = host.run(["insmod", filesystems.build_directory() + "/qtfs_server.ko", "qtfs_server_ip=10.0.0.1"], check=False)
        true(done.status != 0, "refused")
        said = "\n".join(host.kernellog.since())
        true("12345" in said, said)
    finally:
        host.background.stop(job)
        host.server.start()


@case("engine without the module says what to do", who=[ROOT], needs="qtfs")
def engine_without_module(t):
    host.server.stop_engine()
    host.server.unload()
    try:
        done = host.run([filesystems.build_directory() + "/bin/engine"], check=False, patience=15)
        eq(done.status, 6, done.complaint)
        true("qtfs_server" in done.complaint and "insmod" in done.complaint, done.complaint)
        eq(len(done.complaint.splitlines()), 1, done.complaint)
    finally:
        host.server.start()


@case("modinfo names license, parameters and the file system alias", who=[ROOT], needs="qtfs")
def information(t):
    found = run(["modinfo", filesystems.build_directory() + "/qtfs.ko"]).text
    for word in ("license:", "GPL", "alias:", "fs-qtfs", "qtfs_server_ip", "qtfs_server_port", "qtfs_log_level"):
        true(word in found, f"{word} in:\n{found}")
    found = run(["modinfo", filesystems.build_directory() + "/qtfs_server.ko"]).text
    for word in ("GPL", "qtfs_server_ip", "qtfs_server_port", "qtfs_log_level"):
        true(word in found, f"{word} in:\n{found}")
