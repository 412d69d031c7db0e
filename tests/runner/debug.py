# SPDX-License-Identifier: GPL-2.0
"""The same tests on a debug kernel: what differs, and what is asked for afterwards. See Documentation/testing.md."""

import os
import threading
import time

from runner import machines

# How many times longer everything may take there.
SLOWNESS = 6
# MiB: a seventh goes to KASAN, and each allocation is noted.
MEMORY = 3072
# For both scans of a machine's memory.
PATIENCE = 600
BUILD = f"{machines.SEEN}/build/debug"


def choose():
    """Everything from here on is about the debug kernel and the modules for it."""
    os.environ["QTFS_KERNEL"] = "debug"
    os.environ.setdefault("QTFS_LAB_MEM", str(MEMORY))
    machines.ENVIRONMENT.update(QTFS_BUILD=BUILD, QTEST_SLOWNESS=str(SLOWNESS))
    machines.slowness = SLOWNESS


def leaks(lab, report, subject):
    """Unloads the modules, and asks both kernels for leaks and whether they have looked all the time."""
    answers = {}

    def ask(machine):
        try:
            done = lab.call("exec", machine, "-n", *machines.environment(), "--", "python3", "-m", "qtest.leaks", check=False, patience=PATIENCE)
            answers[machine] = (done.stdout + done.stderr)[-12000:] if done.returncode else None
        except machines.LabError as error:
            answers[machine] = str(error)

    begin = time.monotonic()
    threads = [threading.Thread(target=ask, args=(machine,)) for machine in machines.MACHINES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for machine, wrong in answers.items():
        name = f"{subject}: after unload {machine} has no leak, and lockdep still looks"
        if wrong is None:
            report.ok(name, time.monotonic() - begin)
        else:
            report.not_ok(name, time.monotonic() - begin, wrong)
