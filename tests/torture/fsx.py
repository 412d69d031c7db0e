# SPDX-License-Identifier: GPL-2.0
"""fsx: random operations on one file, through system calls and mappings; each read is compared with what must be there."""

import os

from qtest import ROOT, USER, case, eq, filesystems, host, lab, run, spawn, files

# Every operation that fsx knows, and how often; nothing is left out.
MIX = {"close_open": 2, "invalidate": 2, "mapread": 10, "mapwrite": 10, "read": 10, "write": 10, "truncate": 4, "fsync": 1, "fdatasync": 1,
       "posix_fallocate": 2, "punch_hole": 3, "sendfile": 3, "posix_fadvise": 2, "copy_file_range": 3}
SHORT, FULL = 400, 100_000
HOURS = 4 * 3600


def exercise(t, seed, operations, config="", without=(), name="file"):
    """One run of fsx; what it has to say of a failure is quoted."""
    conf, artifacts = f"/tmp/fsx-{t.who.name}-{seed}.toml", f"/tmp/fsx-{t.who.name}-{seed}"
    weights = [f"{operation} = {0 if operation in without else weight}" for operation, weight in MIX.items()]
    files.write(conf, config + "\n".join(["[weights]", *weights, ""]))
    os.makedirs(artifacts, exist_ok=True)
    done = run([filesystems.build_directory() + "/tools/fsx", "-f", conf, "-N", str(operations), "-S", str(seed), "-P", artifacts,
                t.path(name)], check=False, patience=HOURS)
    if done.status:
        raise AssertionError(f"fsx -N {operations} -S {seed} -f {conf}: status {done.status}\n{done.text[-4000:]}\n{done.complaint[-4000:]}")
    eq(host.files.digest(t.there(name)), files.digest(t.path(name)), f"what is on the host after seed {seed}")
    t.note(f"seed {seed}: {operations} operations")


@case("all operations, mappings are synced after each write", who=[USER], limit=120, full=HOURS)
def all_operations(t):
    for number in range(t.amount(1, 3)):
        exercise(t, t.seed(number), t.amount(SHORT, FULL))


@case("all operations, mappings are synced when the kernel likes", who=[ROOT], limit=120, full=HOURS)
def unsynced_mappings(t):
    exercise(t, t.seed(10), t.amount(SHORT, FULL), "nomsyncafterwrite = true\n")


@case("a file of 8 MiB, operations of up to 1 MiB", who=[USER], limit=120, full=HOURS)
def large(t):
    exercise(t, t.seed(20), t.amount(120, 20_000), "flen = 8388608\n[opsize]\nmax = 1048576\n")


@case("blocks of 4096 bytes in a file that keeps its size", who=[USER], limit=120, full=HOURS)
def blocks(t):
    files.write("file", files.pattern(1 << 20))
    exercise(t, t.seed(30), t.amount(SHORT, FULL), "flen = 1048576\nblockmode = true\n[opsize]\nalign = 4096\nmax = 65536\n",
             without=("truncate", "posix_fallocate", "close_open"))


@case("four files at once, while the link comes and goes", who=[ROOT], needs="qtfs", limit=180, full=HOURS)
def disturbed(t):
    seed = t.seed(40)
    children = [spawn(exercise, t, seed + number, t.amount(150, 25_000), "", (), f"file{number}") for number in range(4)]
    cuts = 0
    try:
        while any(child.alive() for child in children):
            lab.link("down")
            children[cuts % 4].finished(0.3)
            lab.link("up")
            children[cuts % 4].finished(1)
            cuts += 1
    finally:
        lab.link("up")
    for child in children:
        child.result(1)
    t.note(f"{cuts} cuts")
