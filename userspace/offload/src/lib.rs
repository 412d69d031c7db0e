// SPDX-License-Identifier: GPL-2.0

//! qtfs-offload: programs of the DPU whose containers are on HOST.
//!
//! [`run`] supervises one program: its mounts, unmounts and signals that concern HOST are done there.
//! [`setup`] prepares both machines and starts everything, by one description ([`config`]). [`hook`] stands
//! before runc on HOST.

pub mod cli;
pub mod config;
pub mod failure;
pub mod hook;
pub mod run;
pub mod setup;
