# SPDX-License-Identifier: GPL-2.0
"""The kernel log of a machine, as it came out of its serial console, and the trouble in it."""

import fcntl
import json
import re
import sys
import time

from state import read_json
from state import write

# How the kernel says that something is wrong with itself. Lines of programs
# that happen to hold such words do not begin with the kernel's time stamp.
TROUBLE = re.compile(rb"""^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[[^]]*\])?\s.*(?:
    \bWARNING:\s | \bBUG\b | \bOops\b | \bKASAN\b | \bKCSAN\b | \bUBSAN\b | kfence:
  | Kernel\ panic | general\ protection\ fault | stack\ segment | double\ fault
  | blocked\ for\ more\ than | \bhung\ task | rcu.*(?:detected\ .*stall|starved\ for) | soft\ lockup | hard\ LOCKUP
  | possible\ recursive\ locking | possible\ circular\ locking | inconsistent\ lock\ state
  | suspicious\ RCU\ usage | held\ lock\ freed | still\ has\ locks\ held | bad\ unlock\ balance
  | refcount_t: | list_(?:add|del)\ corruption | Busy\ inodes\ after\ unmount | Objects\ remaining\ in
  | [Uu]nable\ to\ handle | panicked\ at | page\ allocation\ failure | EXT4-fs\ error
  | unregister_netdevice:\ waiting
  # What only a debug kernel says, and that it no longer looks.
  | sleeping\ function\ called | trying\ to\ register\ non-static\ key | ODEBUG: | ref_tracker:
  | turning\ off\ the\ locking\ correctness\ validator | kmemleak:\ .*disabled )""", re.VERBOSE)


class Console:
    """The file that a machine's serial console writes to, all boots one after another."""

    def __init__(self, directory):
        self.path = directory / "console.log"
        self.marks = directory / "marks.json"
        self.found = directory / "trouble.json"
        self.lock = directory / "trouble.lock"

    def size(self):
        return self.path.stat().st_size if self.path.exists() else 0

    def new_boot(self, number):
        with open(self.path, "ab") as file:
            if file.tell():
                file.write(b"\n")
            file.write(b"==== lab: boot %d ====\n" % number)
        self._set("boot", self.size())

    def mark(self):
        self._set("mark", self.size())

    def _set(self, name, offset):
        marks = read_json(self.marks, {})
        marks[name] = offset
        write(self.marks, json.dumps(marks))

    def offset(self, name):
        return read_json(self.marks, {}).get(name, 0)

    def read(self, start=0):
        if not self.path.exists():
            return b""
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read().replace(b"\r", b"")

    def follow(self, start, out):
        """Passes on what comes, until interrupted."""
        with open(self.path, "rb") as file:
            file.seek(start)
            while True:
                out.write(file.read().replace(b"\r", b""))
                out.flush()
                time.sleep(0.2)

    def tail(self, lines):
        text = self.read(max(0, self.size() - 16384)).decode("utf-8", "replace")
        return [line for line in text.split("\n") if line.strip()][-lines:]

    # --- Trouble. ---

    def _scan(self, state):
        """Looks at what is new since the last scan, but for a line that is still being written."""
        data = b""
        if self.size() > state["end"]:
            with open(self.path, "rb") as file:
                file.seek(state["end"])
                data = file.read()
        offset = state["end"]
        for line in data[:data.rfind(b"\n") + 1].splitlines(keepends=True):
            if TROUBLE.search(line):
                state["lines"].append([offset, line.decode("utf-8", "replace").strip()])
            offset += len(line)
        state["end"] = offset
        return state

    def trouble(self, start=0, report=None):
        """The offending lines from the offset on. Those not reported before go to report(lines)."""
        if not self.path.exists():
            return []
        with open(self.lock, "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = read_json(self.found, {"end": 0, "lines": [], "reported": 0})
            before = (state["end"], state["reported"])
            state = self._scan(state)
            lines = state["lines"]
            if report and len(lines) > state["reported"]:
                report([text for _, text in lines[state["reported"]:]])
                state["reported"] = len(lines)
            if before != (state["end"], state["reported"]):
                write(self.found, json.dumps(state))
        return [text for offset, text in lines if offset >= start]


def warn(machine):
    """Says on stderr, in one line and once, what is newly wrong with a machine."""
    def report(lines):
        more = f" (and {len(lines) - 1} more lines)" if len(lines) > 1 else ""
        print(f"lab: {machine.name}: kernel trouble: {lines[0]}{more}; "
              f"see \"lab{machine.lab.option} health\"", file=sys.stderr)
    machine.console.trouble(report=report)
