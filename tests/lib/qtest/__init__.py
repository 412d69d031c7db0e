# SPDX-License-Identifier: GPL-2.0
"""The test framework: what test files import. See Documentation/testing.md."""

from . import counters
from . import filesystems
from . import files
from . import kernelfs
from . import kernellog
from . import process
from . import proxy
from . import server
from . import syscalls
from .registry import case
from .checks import eq
from .checks import eventually
from .checks import fails
from .checks import missing
from .checks import same_bytes
from .checks import skip
from .checks import took
from .checks import true
from .checks import within
from .process import as_user
from .process import EVERYBODY
from .process import OTHER
from .process import ROOT
from .process import run
from .process import spawn
from .process import USER
from .process import Who
from .remote import host
from .remote import lab
from .remote import on_host
from .wire import HostGone
