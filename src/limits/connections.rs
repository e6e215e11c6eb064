//! How many connections one client address may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clients::{Networks, subscriber};

/// Counts connections by address. Those of this machine and of trusted proxies are not counted: they carry the requests
/// of many.
pub struct ConnectionLimit {
    most: usize,
    exempt: Networks,
    open: Mutex<HashMap<IpAddr, usize>>,
    on_refusal: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for ConnectionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionLimit")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl ConnectionLimit {
    /// Allows `most` connections an address, 0 for any number; calls `on_refusal` for each that is one too many.
    #[must_use]
    pub fn new(
        most: usize,
        exempt: Networks,
        on_refusal: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            most,
            exempt,
            open: Mutex::default(),
            on_refusal: Box::new(on_refusal),
        })
    }

    /// Counts a connection until the value is dropped. `None`: the address has as many as it may have.
    pub fn open(self: &Arc<Self>, peer: IpAddr) -> Option<OpenConnection> {
        let peer = peer.to_canonical();
        if self.most == 0 || peer.is_loopback() || self.exempt.contains(peer) {
            return Some(OpenConnection { counted: None });
        }
        let client = subscriber(peer);
        let mut open = self.lock();
        let count = open.entry(client).or_default();
        if *count >= self.most {
            drop(open);
            (self.on_refusal)();
            return None;
        }
        *count += 1;
        Some(OpenConnection {
            counted: Some((Arc::clone(self), client)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct OpenConnection {
    counted: Option<(Arc<ConnectionLimit>, IpAddr)>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let Some((limit, client)) = self.counted.take() else {
            return;
        };
        if let Entry::Occupied(mut count) = limit.lock().entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_others_have_theirs() {
        let refusals = Arc::new(AtomicUsize::new(0));
        let limit = ConnectionLimit::new(2, "10.0.0.0/8".parse().unwrap(), {
            let refusals = Arc::clone(&refusals);
            move || {
                refusals.fetch_add(1, Ordering::Relaxed);
            }
        });
        let open = |address: &str| limit.open(address.parse().unwrap());
        let kept = [open("2001:db8::1"), open("2001:db8::2")];
        assert!(kept.iter().all(Option::is_some));
        assert!(open("2001:db8::3").is_none(), "the same subscriber");
        assert_eq!(refusals.load(Ordering::Relaxed), 1);
        assert!(open("192.0.2.1").is_some());
        for exempt in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3"] {
            let many: Vec<_> = (0..9).map(|_| open(exempt)).collect();
            assert!(many.iter().all(Option::is_some), "{exempt}");
        }
        drop(kept);
        assert!(open("2001:db8::3").is_some());
        assert!(limit.lock().is_empty(), "who has none is forgotten");
    }

    #[test]
    fn zero_is_any_number() {
        let limit = ConnectionLimit::new(0, Networks::default(), || {});
        let address = IpAddr::from([192, 0, 2, 1]);
        let many: Vec<_> = (0..999).map(|_| limit.open(address)).collect();
        assert!(many.iter().all(Option::is_some));
    }
}
