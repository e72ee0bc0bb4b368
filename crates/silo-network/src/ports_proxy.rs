//! Serves at published ports what nftables does not translate: connections to the host's `::1`, whose answers the kernel brings back
//! from no other interface; IPv6 ports of a container that has IPv4 alone; a container that calls its own port.
//!
//! One thread a container waits at the sockets that hold its ports; each TCP connection has two more, whose bytes the kernel moves
//! itself. Source addresses are not kept (the container sees the host's address on its bridge), as with dockerd's proxy. It ends with
//! the daemon and comes back with it.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// How long a container may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a datagram's sender is remembered after its last one.
const IDLE: Duration = Duration::from_secs(90);
/// Connections and remembered senders at a time; more are refused.
const MOST: usize = 1024;
/// How long nobody is accepted after the host refused a descriptor.
const PAUSE: Duration = Duration::from_millis(100);
/// Nothing deep is called there.
const STACK: usize = 128 * 1024;
const DATAGRAM: usize = 65_536;

/// A socket and where what comes to it is to go.
#[derive(Debug)]
pub(crate) struct Proxied {
    pub(crate) socket: OwnedFd,
    /// UDP, or else TCP and listening.
    pub(crate) datagrams: bool,
    pub(crate) to: SocketAddr,
}

/// Connections that go on, to be ended with the proxy.
#[derive(Debug, Default)]
struct Connections {
    /// Those that wait for the container, too.
    count: AtomicUsize,
    ended: AtomicBool,
    streams: Mutex<HashMap<u64, (TcpStream, TcpStream)>>,
}

impl Connections {
    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        for (client, server) in lock(&self.streams).values() {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

/// The proxy of one container; ends, with all its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    stop: Arc<OwnedFd>,
    connections: Arc<Connections>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(crate) fn start(proxied: Vec<Proxied>) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let connections = Arc::new(Connections::default());
        let mut ports = Vec::new();
        for Proxied { socket, datagrams, to } in proxied {
            rustix::io::ioctl_fionbio(&socket, true)?;
            ports.push(match datagrams {
                true => Port::Datagrams { socket: socket.into(), to, senders: HashMap::new() },
                false => Port::Streams { listener: socket.into(), to },
            });
        }
        let thread = {
            let (stop, connections) = (Arc::clone(&stop), Arc::clone(&connections));
            thread::Builder::new()
                .name("port-proxy".to_owned())
                .stack_size(STACK)
                .spawn(move || serve(ports, &stop, &connections))?
        };
        Ok(Self { stop, connections, thread: Some(thread) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Err(e) = rustix::io::write(&*self.stop, &1u64.to_ne_bytes()) {
            tracing::warn!("ending a port's proxy: {e}");
            return;
        }
        // It never waits but where this wakes it; its sockets are closed with it.
        let _ = self.thread.take().map(JoinHandle::join);
        self.connections.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Port {
    Streams { listener: TcpListener, to: SocketAddr },
    Datagrams { socket: UdpSocket, to: SocketAddr, senders: HashMap<SocketAddr, Sender> },
}

/// Who sent a datagram: the socket that stands for them at the container.
struct Sender {
    socket: UdpSocket,
    last: Instant,
}

impl Port {
    /// What to wait at.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Streams { listener, .. } => vec![listener.as_fd()],
            Self::Datagrams { socket, senders, .. } => {
                std::iter::once(socket.as_fd()).chain(senders.values().map(|s| s.socket.as_fd())).collect()
            }
        }
    }

    /// Does all there is to do without waiting.
    fn work(&mut self, connections: &Arc<Connections>, buffer: &mut [u8]) {
        match self {
            Self::Streams { listener, to } => {
                loop {
                    match listener.accept() {
                        Ok((client, _)) => {
                            if let Err(e) = connect(client, *to, connections) {
                                tracing::debug!("a connection to the published port of {to}: {e}");
                            }
                        }
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        Err(e) => {
                            tracing::debug!("accepting for the published port of {to}: {e}");
                            // No descriptors are left, most likely; whoever waits to be accepted is still there then.
                            thread::sleep(PAUSE);
                            break;
                        }
                    }
                }
            }
            Self::Datagrams { socket, to, senders } => {
                while let Ok((length, from)) = socket.recv_from(buffer) {
                    if !senders.contains_key(&from) && senders.len() < MOST {
                        match toward(*to) {
                            Ok(socket) => {
                                senders.insert(from, Sender { socket, last: Instant::now() });
                            }
                            Err(e) => tracing::debug!("a sender to the published port of {to}: {e}"),
                        }
                    }
                    if let Some(sender) = senders.get_mut(&from) {
                        sender.last = Instant::now();
                        // Datagrams may be lost.
                        let _ = sender.socket.send(&buffer[..length]);
                    }
                }
                for (from, sender) in senders.iter_mut() {
                    while let Ok(length) = sender.socket.recv(buffer) {
                        sender.last = Instant::now();
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                }
                senders.retain(|_, sender| sender.last.elapsed() < IDLE);
            }
        }
    }
}

fn serve(mut ports: Vec<Port>, stop: &OwnedFd, connections: &Arc<Connections>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        {
            let waited: Vec<BorrowedFd<'_>> =
                std::iter::once(stop.as_fd()).chain(ports.iter().flat_map(Port::descriptors)).collect();
            let mut waited: Vec<PollFd<'_>> =
                waited.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            // Idle senders are looked for now and then.
            let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
            match poll(&mut waited, Some(&patience)) {
                Ok(_) if !waited[0].revents().is_empty() => return,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => {
                    tracing::warn!("a port's proxy ends: {e}");
                    return;
                }
            }
        }
        for port in &mut ports {
            port.work(connections, &mut buffer);
        }
    }
}

/// A datagram socket that speaks with a container's port alone.
fn toward(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connects an accepted client with the container, on threads of their own.
fn connect(client: TcpStream, to: SocketAddr, connections: &Arc<Connections>) -> io::Result<()> {
    if connections.count.load(Ordering::SeqCst) >= MOST {
        return Err(io::Error::other(format!("{MOST} are open already")));
    }
    client.set_nonblocking(false)?;
    connections.count.fetch_add(1, Ordering::SeqCst);
    let counted = Arc::clone(connections);
    // A client whose container does not answer is told by the end of its connection.
    let run = move || {
        if let Err(e) = converse(&client, to, &counted) {
            tracing::debug!("a connection to the published port of {to}: {e}");
        }
        counted.count.fetch_sub(1, Ordering::SeqCst);
    };
    let started = thread::Builder::new().name("port-proxy".to_owned()).stack_size(STACK).spawn(run);
    started.map(|_| ()).inspect_err(|_| {
        connections.count.fetch_sub(1, Ordering::SeqCst);
    })
}

/// Connects to the container and passes on what both say until both are done.
fn converse(client: &TcpStream, to: SocketAddr, connections: &Connections) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let server = TcpStream::connect_timeout(&to, CONNECT)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    lock(&connections.streams).insert(number, (client.try_clone()?, server.try_clone()?));
    // Who came while the proxy ended was not among those that were ended.
    if !connections.ended.load(Ordering::SeqCst) {
        thread::scope(|scope| {
            let back = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || pass(&server, client));
            if back.is_ok() {
                pass(client, &server);
            }
        });
    }
    lock(&connections.streams).remove(&number);
    Ok(())
}

/// All bytes of one direction, and its end.
fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let result = io::copy(&mut from, &mut to);
    // An end is passed on as an end, a failure as one.
    let how = if result.is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _ = to.shutdown(how);
    if result.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::ports_hold::hold;

    fn proxy(datagrams: bool, to: SocketAddr) -> (Proxy, SocketAddr) {
        let protocol = if datagrams { "udp" } else { "tcp" };
        let (port, socket) = hold(protocol, [127, 0, 0, 1].into(), 0).unwrap();
        let proxy = Proxy::start(vec![Proxied { socket: socket.unwrap(), datagrams, to }]).unwrap();
        (proxy, ([127, 0, 0, 1], port).into())
    }

    #[test]
    fn bytes_and_ends_go_both_ways() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (proxy, at) = proxy(false, server.local_addr().unwrap());
        let mut client = TcpStream::connect(at).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (mut inside, _) = server.accept().unwrap();
        client.write_all(&[7; 300_000]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        inside.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 300_000);
        // After the client's end the other way is still open, until the proxy ends.
        inside.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        drop(proxy);
        assert_eq!(client.read(&mut answer).unwrap_or(0), 0);
        assert!(TcpStream::connect(at).is_err(), "the port is free again");
    }

    #[test]
    fn datagrams_come_back_to_who_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (_proxy, at) = proxy(true, server.local_addr().unwrap());
        let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut buffer = [0; 16];
        for (n, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.send_to(&[n as u8], at).unwrap();
        }
        for _ in &clients {
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], from).unwrap();
        }
        for (n, client) in clients.iter().enumerate() {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&[n as u8][..], at));
        }
    }
}
