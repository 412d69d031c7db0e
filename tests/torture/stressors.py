# SPDX-License-Identifier: GPL-2.0
"""stress-ng: its stressors for file systems, one after another, several processes each; results are verified."""

import re

from qtest import ROOT, USER, case, eq, run, true

# For users as well as for root; and what needs root.
STRESSORS = {
    USER: """access acl chdir chmod copy-file dentry dir dirdeep dirmany dnotify dup fallocate fcntl fiemap file-ioctl filename filerace
             flock fpunch fsize fstat getdent hdd inotify io iomix lease link locka lockf lockmix lockofd memfd metamix mmap mmapfixed
             mmapfork mremap msync msyncmany open readahead rename revio rofs seek sendfile splice symlink sync-file touch truncate unlink
             utime vmsplice xattr""",
    ROOT: """chattr chown copy-file dentry dirdeep fanotify handle hdd inode-flags iomix link metamix mknod rename seek sync-file unlink
             verity xattr""",
}
# In the short form: those whose turns are short.
FEW = {USER: "dirdeep fallocate fcntl flock fpunch getdent lockf lockofd metamix mmap rename utime xattr",
       ROOT: "chown fanotify iomix mknod"}
# Options that put into the file system what a stressor would have elsewhere.
MORE = {"mmap": ["--mmap-file"], "hdd": ["--hdd-bytes", "4m"], "iomix": ["--iomix-bytes", "4m"], "seek": ["--seek-size", "4m"],
        "revio": ["--revio-bytes", "4m"], "readahead": ["--readahead-bytes", "4m"], "msync": ["--msync-bytes", "4m"],
        "fallocate": ["--fallocate-bytes", "16m"], "sync-file": ["--sync-file-bytes", "4m"], "copy-file": ["--copy-file-bytes", "4m"]}
# What a stressor does not find here, and why; it says so itself.
ABSENT = {"verity": "fs-verity is HOST's own affair", "rofs": "needs a file system that is read-only"}

# The status of what stress-ng did not run.
SKIPPED = (3, 4)


def known():
    """The stressors of this version."""
    return set(run(["stress-ng", "--stressors"]).text.split())


def stress(t, stressors, seconds):
    """Each for so long; none may fail, and only what is expected may not run."""
    missing, ran = [], {}
    for name in stressors:
        done = run(["stress-ng", f"--{name}", "2", "--timeout", f"{seconds}s", "--verify", "--metrics", "--oom-avoid", "--temp-path", t.dir,
                    *MORE.get(name, [])], check=False, patience=seconds + 900)
        said = done.text + done.complaint
        if done.status in SKIPPED or re.search(r"skipped: [1-9]", said):
            missing.append(name)
            t.note(f"{name}: {[line for line in said.splitlines() if 'skip' in line][:1]}")
            continue
        eq(done.status, 0, f"stress-ng --{name}:\n{said}\nstatus")
        found = re.search(rf"metrc: .*\b{name} +(\d+)", said)
        ran[name] = int(found[1]) if found else 0
    t.note(", ".join(f"{name} {operations}" for name, operations in ran.items()))
    return missing, ran


def selection(t, who):
    """Those of the form that is run, as far as this version has them."""
    there = known()
    wanted = (STRESSORS if t.full else FEW)[who].split()
    t.note("not in this version: " + " ".join(sorted(set(wanted) - there)) if set(wanted) - there else f"{len(wanted)} stressors")
    return [name for name in wanted if name in there]


@case("stressors of an ordinary user", who=[USER], limit=240, full=7200)
def of_users(t):
    missing, ran = stress(t, selection(t, USER), t.amount(1, 20))
    eq(set(missing) - set(ABSENT), set(), "did not run")
    true(len(ran) >= t.amount(10, 40), f"{len(ran)} ran")


@case("stressors of root", who=[ROOT], limit=240, full=7200)
def of_root(t):
    missing, ran = stress(t, selection(t, ROOT), t.amount(1, 20))
    eq(set(missing) - set(ABSENT), set(), "did not run")
    true(len(ran) >= t.amount(3, 12), f"{len(ran)} ran")
