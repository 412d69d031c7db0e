// SPDX-License-Identifier: GPL-2.0

//! qtfs-offload: programs of the DPU whose containers are on HOST.
//!
//! [`run`] supervises one program: its mounts, unmounts and signals that concern HOST are done there.

pub mod cli;
pub mod failure;
pub mod hook;
pub mod run;
