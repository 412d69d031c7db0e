# SPDX-License-Identifier: GPL-2.0
"""The power of the dpu is cut while its containers run on the host."""

import ast
import time

from qtest.checks import eq
from runner.machines import LabError

KEY = "k" * 32
NAME = "dpu_power: containers live on when the power of the dpu is cut, and its daemons find them again"


def call(lab, machine, function, *arguments):
    """Calls a function of qtest.power in a machine; what it prints."""
    return lab.code(machine, f"import sys; from qtest import power; power.{function}(*sys.argv[1:])", *map(str, arguments))


def cut(lab):
    """The whole story."""
    for machine in ("host", "dpu"):
        call(lab, machine, "up", KEY)
    pids, counted = ast.literal_eval(call(lab, "dpu", "begin").splitlines()[-1])
    before = call(lab, "host", "processes", pids)
    lab.call("crash", "dpu")
    eq(call(lab, "host", "processes", pids), before, "the processes while the dpu is off")
    lab.call("boot", "dpu")
    call(lab, "dpu", "found_again", pids, counted)
    call(lab, "host", "nothing_left")


def dpu_power(lab, report):
    """One test; the machines are made new after it."""
    begin = time.monotonic()
    try:
        cut(lab)
        problems = [lab.complaints()]
    except (AssertionError, LabError, ValueError, SyntaxError) as error:
        problems = [str(error), lab.ask("dpu", "tail -n 20 /var/log/qtfs/*.log"), lab.log("host", "--last", "30"), lab.log("dpu", "--last", "30")]
    if any(problems):
        report.not_ok(NAME, time.monotonic() - begin, "\n".join(problems))
    else:
        report.ok(NAME, time.monotonic() - begin)
    lab.reboot()
