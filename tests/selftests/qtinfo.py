# SPDX-License-Identifier: GPL-2.0
"""qtinfo shows what the kernel counted, once and again and again, and sets the log level."""

import json
import os
import pty
import select
import signal
import subprocess
import time

from qtest import (ROOT, USER, case, counters, eq, eventually, files, filesystems, host, kernellog, lab, on_host, process, run,
                   true, within)

# The cases mount what they need.
MANUAL = True
# The space is \040 in the kernel's tables.
TOP = "/mnt/qtinfo of tests"
EXPORT = "/data/export/qtinfo"
LEVEL = "/sys/module/qtfs/parameters/qtfs_log_level"
COLUMNS = ("requests", "waits", "retransmits", "bytes_sent", "bytes_received", "errors", "total_us")


def set_up(fs):
    """Server and module, and a mount with something in it."""
    if fs.name != "qtfs":
        return
    host.server.start(fresh=True)
    filesystems.load_module(fresh=True)
    host.files.fresh_directory(EXPORT)
    host.files.write(f"{EXPORT}/f", b"data")
    os.makedirs(TOP, exist_ok=True)


def tear_down(fs):
    """What other files expect."""
    if fs.name == "qtfs":
        unmount()
        filesystems.load_module()


def mount(*options):
    """The mount, new."""
    filesystems.load_module()
    unmount()
    filesystems.mount(EXPORT, TOP, *options)


def unmount():
    if os.path.ismount(TOP):
        filesystems.umount(TOP)


def qtinfo(*words, status=0, who=None):
    """Runs it; the exit status must be this one."""
    done = run([program(), *words], check=False, who=who)
    eq(done.status, status, done)
    return done


def program():
    """Where it is."""
    return filesystems.build_directory() + "/bin/qtinfo"


def seen(*words):
    """What it says of the one mount, for programs."""
    found = json.loads(qtinfo("--json", *words).text)
    eq(found["version"], 1)
    mounts = [entry for entry in found["mounts"] if entry["mount_point"] == TOP]
    eq(len(mounts), 1, found)
    return mounts[0]


def use(times=20):
    """Some requests of several kinds, one of which fails."""
    for number in range(times):
        files.write(f"{TOP}/w", b"x" * number)
        eq(len(files.read(f"{TOP}/w")), number)
    os.listdir(TOP)
    try:
        os.rmdir(f"{TOP}/f")
    except NotADirectoryError:
        pass


def at_rest(look):
    """What a look tells, and the counters, while they stand still: files are released when nobody waits for it."""
    def same():
        before = counters.read(TOP)
        found = look()
        still = int(found["in_flight"]) == 0 and counters.read(TOP).operations == before.operations
        return (found, before) if still else None
    return eventually(same, 30, "the counters stand still")


@case("--json has what mountstats has: every operation, every column, and a histogram that adds up", who=[ROOT], needs="qtfs")
def agrees(t):
    mount("soft,timeo=300,nconnect=3")
    use()

    found, told = at_rest(lambda: seen(TOP))
    kept = told.operations
    eq(set(found["operations"]), set(kept))
    for name, columns in kept.items():
        shown = found["operations"][name]
        eq({column: shown[column] for column in COLUMNS}, {column: columns[column] for column in COLUMNS}, name)
        eq(shown["finished"], sum(part["count"] for part in shown["latency"]), name)
        eq([part["below_us"] for part in shown["latency"]], [2 ** power for power in range(1, 27)] + [None], name)
        if shown["finished"]:
            eq(shown["mean_us"], shown["total_us"] / shown["finished"], name)
            true(shown["p50_below_us"] <= shown["p99_below_us"], name)
        else:
            eq([shown["mean_us"], shown["p50_below_us"], shown["p99_below_us"]], [None] * 3, name)
    opened = found["operations"]["OPEN"]
    true(opened["finished"] == opened["requests"] > 0, opened)
    eq([found[key] for key in ("source", "server", "port", "mode", "in_flight", "reconnects")], [EXPORT, "10.0.0.1", 12345, "files", 0, 0])
    for option in ("rw", "server=10.0.0.1", "nconnect=3", "soft", "timeo=300"):
        true(option in found["options"], f"{option} in {found['options']}")


@case("how long requests take is told: a request over a slow link is in a late part of the histogram", who=[ROOT], needs="qtfs")
def slow(t):

    mount()
    lab.link("delay", "60")
    try:
        os.statvfs(TOP)
    finally:
        lab.link("reset")
    found = seen()["operations"]["STATFS"]
    eq(found["finished"], 1)
    within(found["total_us"], 100_000, 5_000_000, "microseconds")
    true(found["p50_below_us"] >= 2 ** 17 and found["p50_below_us"] / 2 <= found["total_us"] < found["p50_below_us"], found)


@case("for people there is a paragraph and a table; other mounts are left out when one is named", who=[ROOT], needs="qtfs")
def table(t):
    mount()
    use(3)
    eventually(lambda: counters.in_flight(TOP) == 0, 30, "nothing is on its way")
    for text in (qtinfo().text, qtinfo(TOP).text, qtinfo(TOP + "/").text):
        lines = text.splitlines()
        place = lines.index(f"{TOP}: {EXPORT} on 10.0.0.1 port 12345")
        true("nconnect=2" in lines[place + 1] and "mode: files" in lines[place + 1], text)
        eq(lines[place + 2], "  session: 0 in flight, 0 reconnects")
        eq(lines[place + 3].split(), ["operation", "requests", "waits", "resent", "sent", "received", "errors", "mean", "p50", "p99"])
        true(any(line.split()[:2] == ["ATTACH", "1"] for line in lines[place + 4:]), text)
    for other in ("/proc", TOP + "/f", "/nowhere"):
        done = qtinfo(other, status=1)
        true(done.complaint.startswith(f"qtinfo: nothing of qtfs is mounted on {other}: "), done)
        eq(len(done.complaint.splitlines()), 1, done)


@case("an ordinary user sees the same", who=[ROOT], needs="qtfs")
def ordinary(t):
    mount()
    true(f"{TOP}: {EXPORT} on 10.0.0.1 port 12345" in qtinfo(who=USER).text.splitlines(), "listed")


@case("--watch into a pipe prints a block for each interval, with rates; SIGINT ends it", who=[ROOT], needs="qtfs")
def blocks(t):
    mount()
    child = subprocess.Popen([program(), "--watch", "0.5", TOP], stdout=subprocess.PIPE, text=True)
    try:
        heads, rated = 0, False
        end = time.monotonic() + 30
        while (heads < 4 or not rated) and time.monotonic() < end:
            use(1)
            line = child.stdout.readline().rstrip("\n")
            heads += line.startswith(TOP + ": ")
            rated = rated or line.split()[:2] == ["operation", "requests/s"]
            true("\x1b" not in line, line)
        true(heads >= 4 and rated, f"{heads} blocks, rates: {rated}")
        child.send_signal(signal.SIGINT)
        eq(child.wait(10), -signal.SIGINT)
    finally:
        child.kill()
        child.stdout.close()


@case("--watch on a terminal has a screen of its own, and gives the old one back on SIGINT", who=[ROOT], needs="qtfs")
def terminal(t):
    mount()
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(program(), [program(), "--watch", "0.3", TOP])
    said = b""

    def hear(seconds):
        nonlocal said
        if select.select([fd], [], [], seconds)[0]:
            try:
                said += os.read(fd, 1 << 16)
            except OSError:
                return False
        return True

    end = time.monotonic() + 20
    while said.count(b"\x1b[H") < 3 and time.monotonic() < end:
        hear(0.1)
    os.kill(pid, signal.SIGINT)
    while hear(5):
        pass
    eq(os.waitpid(pid, 0)[1], 0, said)
    os.close(fd)
    true(said.startswith(b"\x1b[?1049h\x1b[?25l"), said)
    true(said.count(b"\x1b[H") >= 3 and TOP.encode() in said, said)
    true(said.endswith(b"\x1b[?25h\x1b[?1049l"), said)


@case("-l sets the log level and tells what it was; without root and with a wrong level it is one line", who=[ROOT], needs="qtfs")
def level(t):
    filesystems.load_module()
    files.write(LEVEL, b"INFO")
    eq(qtinfo("-l", "debug").text, "qtfs: the log level was INFO and is DEBUG now")
    eq(files.read(LEVEL), b"DEBUG\n")
    eq(qtinfo("-l", "WARN").text, "qtfs: the log level was DEBUG and is WARN now")
    eq(qtinfo("-l", "LOUD", status=2).complaint, 'qtinfo: "LOUD" is no log level: give ERROR, WARN, INFO or DEBUG')
    eq(qtinfo("-l", "INFO", status=1, who=USER).complaint, "qtinfo: changing the log level needs root: run it with sudo")
    eq(files.read(LEVEL), b"WARN\n")
    files.write(LEVEL, b"INFO")
    eq(host.run([program(), "-l", "INFO"]).text, "qtfs_server: the log level was INFO and is INFO now")


@case("without mounts and without modules it says so", who=[ROOT], needs="qtfs")
def nothing(t):
    unmount()
    if "qtfs" not in [line.split()[2] for line in files.read("/proc/self/mounts").decode().splitlines()]:
        eq(qtinfo().text, "nothing of qtfs is mounted")
        eq(json.loads(qtinfo("--json").text), {"version": 1, "mounts": []})
        filesystems.unload_module()
        eq(qtinfo(status=1).complaint, 'qtinfo: qtfs.ko is not loaded: run "insmod qtfs.ko qtfs_server_ip=ADDRESS" first')
        eq(qtinfo("-l", "INFO", status=1).complaint, "qtinfo: neither qtfs.ko nor qtfs_server.ko is loaded: load one with insmod first")
        filesystems.load_module()
    done = host.run([program()], check=False)
    eq(done.status, 1)
    true("this is HOST" in done.complaint, done)


@case("lines of the kernel log name the server and the directory of the mount", who=[ROOT], needs="qtfs")
def log_lines(t):
    filesystems.load_module()
    unmount()
    files.write(LEVEL, b"DEBUG")
    try:
        kernellog.begin()
        mount()
        os.statvfs(TOP)
        said = [line for line in kernellog.since() if "qtfs: " in line]
    finally:
        files.write(LEVEL, b"INFO")
    where = f"qtfs: 10.0.0.1:12345:{EXPORT}: "
    true(any(where + "lane 0: connected" in line for line in said), said)
    true(any(where + "STATFS: status 0 after " in line for line in said), said)


# --- Tracepoints. ---

TRACING = "/sys/kernel/tracing"


@on_host
def kill_connections():
    """Resets all connections to the server, as a router in between might do."""
    process.run("ss -K state established sport = :12345", check=False)


def numbers(device):
    """What sysfs has of a mount: a file each."""
    top = f"/sys/fs/qtfs/{os.major(device)}:{os.minor(device)}"
    return {name: files.read(f"{top}/{name}").decode().removesuffix("\n") for name in os.listdir(top)}


def readable(path):
    """Whether a file can be read."""
    return len(files.read(path)) > 0


@case("sysfs has the sums of a mount's counters, as long as it is mounted, and anybody may read them", who=[ROOT], needs="qtfs")
def in_sysfs(t):
    mount()
    device = os.stat(TOP).st_dev
    eq(os.listdir("/sys/fs/qtfs"), [f"{os.major(device)}:{os.minor(device)}"])
    os.listdir(TOP)
    found, told = at_rest(lambda: numbers(device))
    eq((found.pop("server"), found.pop("path"), found.pop("in_flight"), found.pop("reconnects")), ("10.0.0.1:12345", EXPORT, "0", "0"))
    eq({name: int(value) for name, value in found.items()}, {name: told.total(name) for name in COLUMNS if name != "total_us"})
    eq(process.as_user(USER, readable, f"/sys/fs/qtfs/{os.major(device)}:{os.minor(device)}/requests"), True)
    unmount()
    eq(os.listdir("/sys/fs/qtfs"), [])


@case("tracepoints tell of start, wait and finish of each request, and of reconnects", who=[ROOT], needs="qtfs")
def tracepoints(t):
    mount()
    files.write(f"{TRACING}/trace", b"")
    files.write(f"{TRACING}/events/qtfs/enable", b"1")
    try:
        os.statvfs(TOP)
        kill_connections()
        eventually(lambda: seen()["reconnects"] > 0, 20, "a connection is made anew")
        os.stat(TOP)
    finally:
        files.write(f"{TRACING}/events/qtfs/enable", b"0")
    traced = files.read(f"{TRACING}/trace").decode()
    where = f"mount=10.0.0.1:12345:{EXPORT} "
    found = {}
    for event in ("start", "wait", "finish"):
        lines = [line for line in traced.splitlines() if f"qtfs_{event}: {where}op=STATFS " in line]
        eq(len(lines), 1, f"lines of {event} in:\n{traced}")
        found[event] = lines[0]
    requests = {line.split("request=")[1].split()[0] for line in found.values()}
    eq(len(requests), 1, found)
    true(" status=0 us=" in found["finish"], found)
    # The program itself waits.
    true(f"-{os.getpid()} " in found["wait"].replace("<...>", ""), found)
    true(f"qtfs_reconnect: {where}lane=" in traced, traced)
