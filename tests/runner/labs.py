# SPDX-License-Identifier: GPL-2.0
"""What needs the virtual machines: in one lab, or in several at once, each of which takes the next file when it is done with one."""

import os
import queue
import threading
import time

from runner import debug
from runner import machines
from runner.dpu_power import dpu_power
from runner.report import Part
from runner.session import Session
from runner.tools import tools
from runner.units import units

# What is tested once both machines are up, before the selftests.
WITH_LAB = {"tools": tools, "dpu_power": dpu_power, "units": units}
# Those that only run when they are named, and with --torture.
ONLY_FULL = ("dpu_power", "units")
# The longest ones; with several labs they come first, so that all end at about the same time.
LONG = ("offload", "proc_walk", "fsx", "proc_tools", "fifos", "link_faults", "socket_programs", "applications", "sockets", "socket_faults",
        "datagrams", "programs", "listing", "server_faults", "mangled", "crashes", "rounds", "scale")


class Work:
    """What is left to do, for all labs."""

    def __init__(self, with_lab, files, options, deadline):
        self.options = options
        self.deadline = deadline
        self.stop = threading.Event()
        # The first one makes the machines' image.
        self.booting = threading.Lock()
        self.left = queue.SimpleQueue()
        if options.jobs > 1:
            files = sorted(files, key=lambda file: LONG.index(file.stem) if file.stem in LONG else len(LONG))
        for item in [*with_lab, *files]:
            self.left.put(item)

    def next(self):
        """The name of something of WITH_LAB, or a file; None at the end."""
        try:
            return None if self.stop.is_set() else self.left.get_nowait()
        except queue.Empty:
            return None


def run_item(item, lab, report, work):
    """One of them; whether the machines are fit for the next."""
    if item in WITH_LAB:
        report.heading(item)
        WITH_LAB[item](lab, report)
        return True
    begin = time.monotonic()
    report.heading(item.name)
    fit = Session(lab, report, work.options).run(item, work.deadline)
    if fit and work.options.debug:
        debug.leaks(lab, report, item.stem)
    report.note(f"{item.name}: {time.monotonic() - begin:.1f} s")
    return fit


def run_in(lab, work, report, done):
    """Boots one lab and works in it until nothing is left. done() after each step."""
    begin = time.monotonic()
    try:
        with work.booting:
            lab.up(report.note)
        report.ok(f"lab: both machines of {lab.name} boot", time.monotonic() - begin)
        done()
        fit = True
        while (item := work.next()) is not None:
            if not fit:
                report.note("the machines are rebooted after what happened")
                lab.reboot()
            fit = run_item(item, lab, report, work)
            if time.monotonic() > work.deadline and not work.stop.is_set():
                work.stop.set()
                report.not_ok("all selftests fit into the time limit", None, f"the limit is {work.options.limit} s; see --limit")
            done()
    except Exception as error:  # pylint: disable=broad-except
        report.not_ok("lab: both machines work", time.monotonic() - begin, error)
        if not isinstance(error, machines.LabError):
            raise
    finally:
        if work.options.keep or lab.was_up:
            report.note(f"the lab stays up: scripts/lab -n {lab.name} shell dpu; scripts/lab -n {lab.name} down")
        else:
            lab.down()
        done()


def run(with_lab, files, options, report, deadline):
    """Everything."""
    work = Work(with_lab, files, options, deadline)
    if options.jobs == 1:
        lab = machines.Lab(options.lab or f"check-{os.getpid()}")
        run_in(lab, work, report, lambda: None)
        return
    labs, threads = [], []
    for number in range(options.jobs):
        part = Part(report)
        labs.append(machines.Lab(f"check-{os.getpid()}-{number}"))
        threads.append(threading.Thread(target=run_in, args=(labs[-1], work, part, part.print)))
        threads[-1].start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        work.stop.set()
        for lab in labs:
            lab.down()
        for thread in threads:
            thread.join()
        raise
    if work.next() is not None:
        report.not_ok("labs: every file was run", None, "no lab was left that works")
