// SPDX-License-Identifier: GPL-2.0

//! rexec's terminal: raw while the program has it, and put back as it was on every way out.

use crate::start::Size;
use rustix::termios::isatty;
use rustix::termios::tcgetattr;
use rustix::termios::tcgetwinsize;
use rustix::termios::tcsetattr;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;
use std::io;

/// The size of a terminal that does not say.
const USUAL: Size = Size {
    rows: 24,
    columns: 80,
    width: 0,
    height: 0,
};

/// The size of the terminal on stdin, stdout or stderr.
pub(super) fn size() -> Size {
    let sizes = [
        tcgetwinsize(rustix::stdio::stdin()),
        tcgetwinsize(rustix::stdio::stdout()),
        tcgetwinsize(rustix::stdio::stderr()),
    ];
    let size = sizes.into_iter().flatten().find(|size| size.ws_row != 0);
    size.map_or(USUAL, |size| Size {
        rows: size.ws_row,
        columns: size.ws_col,
        width: size.ws_xpixel,
        height: size.ws_ypixel,
    })
}

/// The terminal on stdin; dropping it puts it back.
pub(super) struct Terminal {
    before: Termios,
    raw: Termios,
}

impl Terminal {
    /// Makes the terminal on stdin raw: every key is the program's. `None` when it is none.
    pub(super) fn make_raw() -> io::Result<Option<Self>> {
        if !isatty(rustix::stdio::stdin()) {
            return Ok(None);
        }
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let terminal = Self { before, raw };
        terminal.resume()?;
        Ok(Some(terminal))
    }

    /// Makes it raw again.
    pub(super) fn resume(&self) -> io::Result<()> {
        Ok(tcsetattr(
            rustix::stdio::stdin(),
            OptionalActions::Now,
            &self.raw,
        )?)
    }

    /// Puts it back as it was.
    pub(super) fn restore(&self) {
        // Without waiting for output that a stopped terminal does not take. One that is gone needs
        // nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}
