// SPDX-License-Identifier: GPL-2.0

//! Who does what when the module tells something.

use crate::bound::Bound;
use crate::bound::LISTENS;
use crate::device::Device;
use crate::device::Event;
use crate::proxies::Proxies;
use std::collections::HashMap;
use std::io;
use std::io::ErrorKind;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Handles what the module tells, in the calling thread, until that fails.
pub fn run(device: &Arc<Device>, proxies: &Arc<Proxies>, runtime: &Handle) -> io::Error {
    let mut bound: HashMap<u64, AbortHandle> = HashMap::new();
    let listens = Arc::new(Semaphore::new(LISTENS));
    let _runtime = runtime.enter();
    loop {
        let event = match device.next() {
            Ok(event) => event,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return error,
        };
        match event {
            Event::Connected(connected) => {
                if let Err(error) = proxies.connected(connected) {
                    return error;
                }
            }
            Event::Bound {
                id,
                waiter,
                kind,
                object,
            } => {
                let socket = Bound::new(Arc::clone(device), id, kind, object, Arc::clone(&listens));
                let task = runtime.spawn(socket.serve(waiter));
                bound.insert(id, task.abort_handle());
            }
            Event::Closed { id } => {
                if let Some(task) = bound.remove(&id) {
                    task.abort();
                }
            }
        }
    }
}
