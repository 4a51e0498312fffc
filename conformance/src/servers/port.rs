//! Free ports for servers that must come back on the same one.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
};

/// How many ports below the ephemeral range are considered.
const SPAN: u16 = 12_000;

/// A port on which nobody listens now, below the range from which outgoing connections take theirs.
///
/// Inside that range a client that dials the port while its server is down can be given the very same port as
/// its own, is then connected to itself, and keeps the server from coming back.
pub(super) fn free_port() -> io::Result<u16> {
    let end = ephemeral_start();
    let offset = u16::try_from(RandomState::new().hash_one(()) % u64::from(SPAN)).unwrap_or(0);
    (0..SPAN)
        .map(|step| end - SPAN + (offset + step) % SPAN)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free loopback port"))
}

fn ephemeral_start() -> u16 {
    let linux = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let first = linux.and_then(|text| text.split_whitespace().next()?.parse().ok());
    // 49152 is what IANA and the other systems use. A machine may start its range at 1024.
    first.unwrap_or(49_152).max(SPAN + 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound_and_is_not_ephemeral() {
        let port = free_port().unwrap();
        assert!(port < ephemeral_start());
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
