# SPDX-License-Identifier: GPL-2.0
"""The power of the dpu is cut while its containers run on the host."""

import ast

from qtest.checks import eq
from runner.driven import call, driven
from runner.machines import MACHINES

KEY = "k" * 32


def begin(lab):
    """Containers run. Their processes, and how far one of them has counted."""
    call(lab, "dpu", "power", "load")
    for machine in MACHINES:
        call(lab, machine, "power", "remember")
    return ast.literal_eval(call(lab, "dpu", "power", "begin").splitlines()[-1])


def end(lab, pids, counted):
    """The dpu, which was booted anew, works with them and ends them; nothing of them is left on either machine."""
    call(lab, "dpu", "power", "found_again", pids, counted)
    for machine in MACHINES:
        call(lab, machine, "power", "nothing_left")


def cut(lab):
    """The whole story."""
    for machine in MACHINES:
        call(lab, machine, "power", "up", KEY)
    pids, counted = begin(lab)
    before = call(lab, "host", "power", "processes", pids)
    lab.call("crash", "dpu")
    eq(call(lab, "host", "power", "processes", pids), before, "the processes while the dpu is off")
    lab.call("boot", "dpu")
    end(lab, pids, counted)


dpu_power = driven("dpu_power: containers live on when the power of the dpu is cut, and its daemons find them again", cut)
