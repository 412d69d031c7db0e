// SPDX-License-Identifier: GPL-2.0

//! Processes of the server's side: how programs are started, watched and ended.
//!
//! ```text
//! rexec_server ── nursery ─┬─ keeper ── program ── its descendants
//!                          └─ keeper ── program ── its descendants
//! ```
//!
//! - [`nursery`]: forks keepers; one for each server.
//! - [`keeper`]: starts a program and ends all its descendants; one for each session.
//! - [`launch`]: what a keeper is asked to run, and how its child becomes that.
//! - [`cgroup`]: a control group for each session, where there can be one.
//! - `children`: what a child subreaper does with its children.
//! - [`sys`]: the system calls; all unsafe code.

pub mod cgroup;
mod children;
pub mod keeper;
pub mod launch;
pub mod nursery;
#[allow(unsafe_code)]
pub mod sys;
