# SPDX-License-Identifier: GPL-2.0
"""Mounts, modules and sessions come and go many times: neither kernel keeps anything of them."""

import os

from qtest import ROOT, case, eq, eventually, files, filesystems, host, on_host, process, server, true

# The cases load and mount what they need.
MANUAL = True
EXPORT = "/data/export/rounds"
TOP = "/mnt/rounds"
MEMORY = ("VmallocUsed", "Percpu", "KernelStack")
CACHES = "/sys/kernel/slab"
# Pieces of address space are kept for a while after they were given back; VmallocUsed tells of those in use.
LAZY = {"vmap_area"}
# Rounds that fill what is only filled once, before the first look.
WARM = 10


def set_up(fs):
    """The server, and a directory to mount."""
    if fs.name != "qtfs":
        return
    host.server.start(fresh=True)
    filesystems.load_module(fresh=True)
    os.makedirs(TOP, exist_ok=True)


def tear_down(fs):
    """Others find both modules loaded."""
    if fs.name == "qtfs":
        host.server.start()
        filesystems.load_module()


def holdings(memory):
    """What this machine's kernel holds: threads and modules, and objects of each slab cache and memory of other kinds in KiB."""
    held = {
        "threads": process.lasting(),
        "modules": len(files.read("/proc/modules").splitlines()),
    }
    return {**held, **memory_held()} if memory else held


def memory_held():
    """Objects of each slab cache, and KiB of other kinds, without what can be given back."""
    files.write("/proc/sys/vm/drop_caches", b"3")
    # What is free on the list of a processor counts as in use otherwise.
    for name in os.listdir(CACHES):
        files.write(f"{CACHES}/{name}/shrink", b"1")
    held = {}
    for line in files.read("/proc/slabinfo").decode().splitlines()[2:]:
        name, active, *_ = line.split()
        if name not in LAZY:
            held[f"slab {name}"] = int(active)
    for line in files.read("/proc/meminfo").decode().splitlines():
        name, value, *_ = line.replace(":", "").split()
        if name in MEMORY:
            held[name] = int(value)
    return held


@on_host
def holdings_there(memory):
    """The same of the host."""
    return holdings(memory)


def closed_connections():
    """How many connections of this machine are in TIME_WAIT, which lasts a minute (proc(5), sockstat)."""
    words = next(line for line in files.read("/proc/net/sockstat").decode().splitlines() if line.startswith("TCP:")).split()
    return int(words[words.index("tw") + 1])


def look(memory):
    """Both machines, after what is freed with a delay is freed: memory in use must have come to rest."""
    seen = []
    if memory:
        eventually(lambda: closed_connections() + host.call(__file__, "closed_connections") == 0, 150, "closed connections are forgotten")
    for ask in (holdings, holdings_there):
        last = ask(memory)

        def rests(ask=ask):
            nonlocal last
            before, last = last, ask(memory)
            return all(last[name] >= before.get(name, 0) - 8 for name in last)

        eventually(rests, 60, "what is freed late is freed")
        seen.append(last)
    return seen


def kept(before, after, rounds):
    """What has grown by as much as half a piece in each round, and how."""
    return {(machine, name): f"{machine}: {name} {earlier.get(name, 0)} -> {later[name]} in {rounds} rounds"
            for machine, earlier, later in zip(("dpu", "host"), before, after)
            for name in later if later[name] - earlier.get(name, 0) >= max(rounds // 2, 2)}


def repeat(t, what, rounds):
    """Does it so often; nothing may be left of it."""
    for _ in range(t.amount(2, WARM)):
        what()
    # A few rounds are too few to tell a leak from chance by numbers; threads and modules are exact.
    before = look(t.full)
    for _ in range(rounds):
        what()
    after = look(t.full)
    grown = kept(before, after, rounds)
    done = rounds
    if grown and t.full:
        # What a processor or a subsystem keeps in stock is not filled once more; a leak goes on.
        for _ in range(rounds):
            what()
        again = kept(after, look(t.full), rounds)
        grown = {key: f"{said}, then {again.get(key)}" for key, said in grown.items() if key in again or not key[1].startswith("slab ")}
        done += rounds
    eq(list(grown.values()), [])
    t.note(f"{done} rounds")


def use():
    """Some of everything, with a mount that is gone afterwards."""
    filesystems.mount(EXPORT, TOP)
    fd = os.open(f"{TOP}/f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 10000)
    os.fsync(fd)
    os.mkdir(f"{TOP}/d")
    eq(sorted(os.listdir(TOP)), ["d", "f"])
    os.rmdir(f"{TOP}/d")
    os.close(fd)
    os.unlink(f"{TOP}/f")
    filesystems.umount(TOP)


@case("mounts and umounts", who=[ROOT], needs="qtfs", limit=240, full=7200)
def mounts(t):
    host.files.fresh_directory(EXPORT)
    repeat(t, use, t.amount(20, 1000))


@case("mounts that are refused", who=[ROOT], needs="qtfs", limit=120, full=3600)
def refused(t):
    def attempt():
        true(filesystems.mount("/nowhere", TOP, check=False).status != 0, "refused")

    repeat(t, attempt, t.amount(10, 300))


@on_host
def reload_there():
    """The host's module and engine anew."""
    server.stop()
    server.start()


@case("both modules are loaded and unloaded", who=[ROOT], needs="qtfs", limit=240, full=7200)
def loads(t):
    host.files.fresh_directory(EXPORT)

    def load():
        filesystems.unload_module()
        reload_there()
        filesystems.load_module()
        use()

    repeat(t, load, t.amount(3, 100))
