# SPDX-License-Identifier: GPL-2.0
"""The counters of a mount, as /proc/self/mountstats shows them.

Both qtfs and NFS print a line per operation. qtfs names its columns in the
header line; those of NFS are known.
"""

import re

NFS_COLUMNS = ["requests", "transmissions", "timeouts", "bytes_sent", "bytes_received",
               "queue_ms", "rtt_ms", "execute_ms", "errors"]


class Counters:
    """What was counted for one mount: operation -> column -> number."""

    def __init__(self, operations, fstype=""):
        self.operations = operations
        self.fstype = fstype

    def __sub__(self, earlier):
        """What happened in between, without operations that did not."""
        changed = {}
        for name, columns in self.operations.items():
            before = earlier.operations.get(name, {})
            difference = {column: value - before.get(column, 0) for column, value in columns.items()}
            if any(difference.values()):
                changed[name] = difference
        return Counters(changed, self.fstype)

    def total(self, column):
        """The sum of a column over all operations."""
        return sum(columns.get(column, 0) for columns in self.operations.values())

    @property
    def waits(self):
        """Round trips that somebody waited for. NFS counts requests only, and CLOSE of NFS waits too."""
        return self.total("waits") if self.fstype == "qtfs" else self.total("requests")

    def count(self, operation, column="requests"):
        """One number."""
        return self.operations.get(operation, {}).get(column, 0)

    def __repr__(self):
        column = "waits" if self.fstype == "qtfs" else "requests"
        parts = []
        for name, columns in self.operations.items():
            text = f"{name} {columns.get('requests', 0)}"
            if column == "waits":
                text += f" ({columns.get('waits', 0)} waited)"
            parts.append(text)
        return ", ".join(parts) or "nothing"


def plain(name):
    """A name of the kernel's tables without their \\040 for a space, and the like."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), name)


def section(mountpoint, text):
    """The lines about one mount, and its type."""
    fstype, lines = None, []
    for line in text.splitlines():
        match = re.match(r"(?:device (.*)|no device) mounted on (.*) with fstype (\S+)", line)
        if match:
            if fstype:
                break
            # A later mount hides an earlier one, so there is at most one that counts.
            if plain(match[2]) == mountpoint:
                fstype = match[3]
        elif fstype:
            lines.append(line)
    if not fstype:
        raise AssertionError(f"{mountpoint} is not in /proc/self/mountstats")
    return fstype, lines


def parse(mountpoint, text):
    """The counters of a mount in the text of mountstats."""
    fstype, lines = section(mountpoint, text)
    operations, columns = {}, None
    for line in lines:
        if "per-op statistics" in line:
            named = re.search(r"\((.*)\)", line)
            columns = named[1].replace(",", " ").split() if named else NFS_COLUMNS
        elif columns and (match := re.match(r"\s*([A-Za-z0-9_]+):((?:\s+\d+)+)\s*$", line)):
            operations[match[1]] = dict(zip(columns, map(int, match[2].split())))
    if columns is None:
        raise AssertionError(f"{mountpoint}: no per-op statistics in /proc/self/mountstats: {lines}")
    return Counters(operations, fstype)


def of_all(fstype="qtfs"):
    """The counters of all mounts of a type together, column -> number; an empty table if there are none."""
    with open("/proc/self/mountstats", encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    points = re.findall(rf"^device .* mounted on (.*) with fstype {fstype}\b", text, re.M)
    totals = {}
    for point in set(map(plain, points)):
        for columns in parse(point, text).operations.values():
            for column, value in columns.items():
                totals[column] = totals.get(column, 0) + value
    return totals


def of_session(mountpoint, name):
    """A number of the session of a qtfs mount."""
    with open("/proc/self/mountstats", encoding="utf-8", errors="surrogateescape") as file:
        for line in section(mountpoint, file.read())[1]:
            if match := re.search(rf"\b{name}=(\d+)", line):
                return int(match[1])
    raise AssertionError(f"{mountpoint}: {name}= is not in /proc/self/mountstats")


def in_flight(mountpoint):
    """How many requests of a qtfs mount are on their way at this moment."""
    return of_session(mountpoint, "in_flight")


def reconnects(mountpoint):
    """How often a qtfs mount has lost a connection."""
    return of_session(mountpoint, "reconnects")


def went_on(mountpoint, before):
    """Whether replies to some operations came since the counters were read."""
    return (read(mountpoint) - before).total("bytes_received") > 500


def read(mountpoint):
    """The counters of a mount now."""
    with open("/proc/self/mountstats", encoding="utf-8", errors="surrogateescape") as file:
        return parse(mountpoint, file.read())
