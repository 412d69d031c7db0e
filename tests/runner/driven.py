# SPDX-License-Identifier: GPL-2.0
"""Tests that are driven from outside, since they switch machines off: one line each."""

import time

from runner.machines import LabError


def call(lab, machine, module, function, *arguments):
    """Calls a function of a module of qtest in a machine; what it prints."""
    code = f"import sys; from qtest import {module}; {module}.{function}(*sys.argv[1:])"
    return lab.code(machine, code, *map(str, arguments))


def driven(name, story, afterwards=None):
    """A phase that calls `story(lab)`; the machines are booted anew after it."""
    def phase(lab, report):
        begin = time.monotonic()
        try:
            story(lab)
            problems = [lab.complaints()]
        except (AssertionError, LabError, ValueError, SyntaxError) as error:
            problems = [str(error), lab.ask("dpu", "tail -n 20 /var/log/qtfs/*.log"), lab.log("host", "--last", "30"), lab.log("dpu", "--last", "30")]
        if any(problems):
            report.not_ok(name, time.monotonic() - begin, "\n".join(problems))
        else:
            report.ok(name, time.monotonic() - begin)
        if afterwards:
            afterwards(lab)
        lab.reboot()
    return phase
