// SPDX-License-Identifier: GPL-2.0

//! The parts of rexec and rexec_server: run a program on the other machine as if it were here.
pub mod address;
pub mod agent;
pub mod channel;
pub mod cli;
pub mod client;
pub mod codec;
pub mod config;
pub mod failure;
pub mod flow;
pub mod link;
pub mod message;
pub mod policy;
pub mod process;
pub mod server;
pub mod start;
pub mod trust;
pub mod wire;
pub mod wrappers;
