# SPDX-License-Identifier: GPL-2.0
"""Programs that look at processes and settings say of the host on the dpu what they say on the host."""

import os
import re
import time
from errno import ENOENT, ESRCH

from qtest import ROOT, case, counters, eq, eventually, files, host, on_host, process, true, within
from qtest.kernelfs import EXPORTS, PROC, Waits, inside, mount_both, set_up, tear_down  # pylint: disable=unused-import

# The cases mount what they need.
MANUAL = True


@on_host
def output_there(command):
    """What a command prints on the host."""
    return process.run(["sh", "-c", command]).text


def both(command):
    """What a command prints on the host, and with the host's /proc and /sys here."""
    return output_there(command), inside(command).text


@case("ps in several formats: every process that stays, field by field", who=[ROOT], needs="qtfs", limit=120)
def ps(t):
    mount_both()
    # Those fields that do not change in a process that does nothing.
    for fields in ("pid,ppid,pgid,sid,tty,comm", "pid,uid,gid,user,group,nice,nlwp,args", "pid,cgroup,label,lstart"):
        command = f"ps -e -o {fields} --no-headers"
        before, here, after = output_there(command).splitlines(), inside(command).text.splitlines(), output_there(command).splitlines()
        # A worker of the kernel is called after the work that it does at the moment.
        stay = {line for line in set(before) & set(after) if "kworker/" not in line}
        true(len(stay) > 30, f"{len(stay)} processes stay")
        missing = sorted(stay - set(here))
        # ps does not see the host's process that has its own number.
        within(len(missing), 0, 1, f"lines of ps -o {fields} that are missing here: {missing}")
        # The caller and its like are processes of this machine.
        new = {int(line.split()[0]) for line in set(here) - stay if "kworker/" not in line}
        true(len(new) <= 12, f"{fields}: {new} are here and did not stay there")


@case("lscpu, lsns, pgrep, sysctl, systemd-cgls and free name the same", who=[ROOT], needs="qtfs", limit=180)
def same(t):
    mount_both()
    commands = ["pgrep -x engine", "pgrep -P 2 | sort", "cat /proc/cmdline /proc/version /proc/filesystems", "free -k | awk '{ print $1, $2 }'",
                "lsns -n -o NS,TYPE -t net", "lsns -n -o NS,TYPE -t uts", "sysctl kernel vm net.ipv4.ip_forward fs.file-max 2>/dev/null"
                " | grep -v 'random\\|nr_\\|pty.nr\\|ns_last_pid\\|hostname'",
                "lscpu | grep -v 'MHz\\|BogoMIPS'", "nproc", "find /sys/fs/cgroup -type d | sort", "cat /sys/block/*/size /sys/class/net/*/address"]
    def steady():
        """Both answers, if the host has not changed meanwhile: kernel threads come and go."""
        there, here = both(command)
        return (there, here) if output_there(command) == there else None

    for command in commands:
        there, here = eventually(steady, 60, f"{command} says the same twice")
        eq(here, there, command)
        true(there, f"{command} says something")


@case("uptime, vmstat and top look at the host's processors and memory", who=[ROOT], needs="qtfs", limit=120)
def moving(t):
    mount_both()
    there, here = both("cut -d. -f1 /proc/uptime")
    within(int(here) - int(there), 0, 30, "seconds of uptime")
    there, here = both("vmstat -s | grep 'total memory\\|boot time'")
    eq(here, there)
    true("load average" in inside("uptime").text, "uptime")
    shown = inside("TERM=dumb top -b -n 1 -w 200").text
    engine = host.server.engines()[0]
    true(re.search(rf"^\s*{engine} root .* engine$", shown, re.M), f"engine, {engine}, in\n{shown}")


# --- Settings. ---

# A setting of the kernel, and what is written to it in one or more writes.
WRITES = [
    ("vm/swappiness", [b"60\n"]), ("vm/swappiness", [b""]), ("vm/swappiness", [b"no number"]), ("vm/swappiness", [b"-1"]),
    ("vm/swappiness", [b"201"]), ("vm/swappiness", [b"6", b"1"]), ("vm/swappiness", [b" 60 \n"]), ("vm/swappiness", [b"60 61"]),
    ("vm/swappiness", [b"9" * 5000]), ("kernel/domainname", [b"x" * 100]), ("kernel/domainname", [b"first", b"second"]),
    ("kernel/ostype", [b"Other"]), ("kernel/pid_max", [b"1"]), ("kernel/pid_max", [b"99999999999999999999"]),
    ("vm/overcommit_memory", [b"7"]), ("net/ipv4/ip_local_port_range", [b"9 1"]), ("net/ipv4/ip_local_port_range", [b"32768 60999"]),
    ("kernel/core_pattern", [b"x" * 300]), ("vm/drop_caches", [b"0"]), ("kernel/nothing", [b"1"]), ("fs/file-max", [b"1e6"]),
]


def written(top, name, pieces, flags):
    """What comes of some writes to one open file, and of a write that does not begin at its start; and of reading it."""
    path = f"{top}/sys/{name}"
    outcome = []
    try:
        old = files.read(path)
    except OSError as e:
        old, outcome = None, [e.errno]
    try:
        fd = os.open(path, os.O_WRONLY | flags)
    except OSError as e:
        return [*outcome, "open", e.errno]
    for number, piece in enumerate([*pieces, pieces[0]]):
        try:
            outcome.append(os.write(fd, piece) if number < len(pieces) else os.pwrite(fd, piece, 1))
        except OSError as e:
            outcome.append(os.strerror(e.errno))
    os.close(fd)
    try:
        outcome.append(files.read(path))
    except OSError as e:
        outcome.append(e.errno)
    if old:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, old)
        except OSError:
            pass
        os.close(fd)
    return outcome


@on_host
def written_there(name, pieces, flags):
    """The same on the host."""
    return written("/proc", name, pieces, flags)


@case("writes of settings have the host's effects and errnos", who=[ROOT], needs="qtfs", limit=120)
def settings(t):
    mount_both()
    for name, pieces in WRITES:
        for flags in (0, os.O_APPEND, os.O_TRUNC):
            eq(written(PROC, name, pieces, flags), list(written_there(name, pieces, flags)), f"{name} {pieces} {flags:#o}")


# --- Processes that come and go. ---

def come_and_go(count):
    """So many short-lived processes, one after the other, some at a time; returns how many there were."""
    alive = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            # Its name tells which one it is.
            with open("/proc/self/comm", "wb") as comm:
                comm.write(b"brief-%d" % os.getpid())
            time.sleep(0.02)
            os._exit(0)
        alive.append(pid)
        if len(alive) > 8:
            os.waitpid(alive.pop(0), 0)
        if number % 50 == 0:
            time.sleep(0.01)
    for pid in alive:
        os.waitpid(pid, 0)
    return count


def look_at(pid):
    """What ps asks of a process; every answer must be about that one."""
    seen = files.read(f"{PROC}/{pid}/stat")
    eq(seen.split(b" ")[0], pid.encode(), "stat is about")
    name = seen[seen.index(b"(") + 1:seen.rindex(b")")]
    if name.startswith(b"brief-"):
        eq(name, f"brief-{pid}".encode(), "the name in stat")
    true(re.search(rf"^Pid:\t{pid}$", files.read(f"{PROC}/{pid}/status").decode(errors="replace"), re.M), "status")
    # Kernel threads have neither arguments nor a program.
    if files.read(f"{PROC}/{pid}/cmdline"):
        os.readlink(f"{PROC}/{pid}/exe")


@case("1,000 processes come and go on the host while /proc is walked: ENOENT or ESRCH, and no answer about another", who=[ROOT],
      needs="qtfs", limit=240)
def many(t):
    mount_both()
    job = host.background.start(__file__, "come_and_go", 1000)
    looked = vanished = 0
    while host.background.alive(job):
        for pid in [name for name in os.listdir(PROC) if name.isdigit()]:
            try:
                look_at(pid)
                looked += 1
            except OSError as e:
                true(e.errno in (ENOENT, ESRCH), f"{pid}: {e}")
                vanished += 1
    eq(host.background.finish(job), 1000)
    t.note(f"{looked} processes were there to the end of the look at them, {vanished} were not")
    true(looked > 50, looked)
    left = [pid for pid in os.listdir(PROC) if pid.isdigit() and files.exists(f"{PROC}/{pid}/comm") and b"brief" in files.read(f"{PROC}/{pid}/comm")]
    eq(left, [], "none is left")


# --- Reads that are special. ---

@case("files that are huge or are read at offsets: what one read of the host returns", who=[ROOT], needs="qtfs", limit=180)
def huge(t):
    mount_both()
    # A kernel with KASAN has no kcore.
    kcore = [("kcore", 0, 64)] if host.files.exists("/proc/kcore") else []
    for name, offset, size in (*kcore, ("kallsyms", 0, 1 << 20), ("1/pagemap", 8 * 512, 8 * 64),
                               ("1/maps", 0, 100), ("1/maps", 0, 1 << 16), ("1/auxv", 16, 32), ("1/environ", 3, 10), ("crypto", 5, 200)):
        eq(read_at(f"{PROC}/{name}", offset, size), read_at_there(f"/proc/{name}", offset, size), f"{name} {offset} {size}")
    there = host.files.digest("/proc/kallsyms")
    eq(files.digest(f"{PROC}/kallsyms"), there)


def read_at(path, offset, size):
    """One read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


@on_host
def read_at_there(path, offset, size):
    """One read on the host."""
    return read_at(path, offset, size)


def next_lines(until=None):
    """What the host's kernel has logged since somebody read that last; reads on until it says something, or to the last line."""
    fd = os.open(f"{PROC}/kmsg", os.O_RDONLY | (0 if until else os.O_NONBLOCK))
    try:
        lines = b""
        while not (until and until in lines):
            lines += os.read(fd, 1 << 16)
        return lines
    except BlockingIOError:
        return lines
    finally:
        os.close(fd)


@case("reads that block take no thread, delay nobody, go on when there is something, and can be killed", who=[ROOT], needs="qtfs")
def blocking(t):
    mount_both()
    threads = host.server.engine_threads()
    next_lines()
    # Something else may be logged meanwhile.
    hello = b"proc_tools: hello"
    first, second, *others = (process.spawn(next_lines, hello) for _ in range(t.amount(12, 200)))
    true(all(reader.sleeps(10) for reader in (first, second, *others)), "they wait")
    # Those that opening at the same time has taken go when they have had nothing to do for a while.
    eventually(lambda: host.server.engine_threads() <= threads + 2, 60, "no thread of engine waits")
    before = time.monotonic()
    eq(files.read(f"{PROC}/1/comm"), host.files.read("/proc/1/comm"))
    within(time.monotonic() - before, 0, 30, "seconds for another read")
    for reader in (first, *others):
        reader.kill()
    true(all(reader.finished(10) for reader in (first, *others)), "they can be killed")

    def told():
        # The reader that was killed may have taken a line with it.
        host.kernellog.note(hello.decode())
        return second.finished(1)
    eventually(told, 20, "a line comes")
    true(hello in second.result(1), "the line comes")


# --- Costs. ---

@case("ps -ef with 200 processes of the host: one round trip for each file that it opens, which are five", who=[ROOT], needs="qtfs", limit=180)
def costs(t):
    mount_both()
    jobs = [host.background.start("signal", "pause") for _ in range(200)]
    try:
        inside("ps -ef")
        with Waits() as waits:
            lines = inside("ps -ef").text.splitlines()
        count = len(lines) - 1
        true(count >= 200, f"{count} lines")
        t.note(f"ps -ef: {waits.count} round trips for {count} processes, {waits.count / count:.2f} for each: {waits.spent}")
        within(waits.count / count, 0, 5.3, "round trips for each process")
    finally:
        for job in jobs:
            host.background.stop(job)
    eventually(lambda: counters.in_flight(PROC) == 0, 10)
