//! The server of one container: its two sockets, made in the container's namespace and served by the reactor's thread.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use silo_sys::links;
use silo_sys::netlink::Socket;
use simple_dns::RCODE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::{Verdict, decide};
use super::directory::Directory;
use super::forward::{self, Way};
use super::message::{self, MOST, Read, Transport};
use super::record::{ResolverForm, View};
use super::redirect;

/// dockerd's address.
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Link-local (RFC 3927): routed by nobody.
const LINK: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
const PORT: u16 = 53;
/// The first interface of every network namespace.
const LO: u32 = 1;
/// Questions of one container that are asked upstream at once, each a task and up to three sockets.
const FORWARDED: usize = 128;
/// Of all containers.
pub(super) const FORWARDED_IN_ALL: usize = 1024;
/// TCP connections of one container.
const CONNECTIONS: usize = 16;
const BACKLOG: i32 = 16;
/// How long a connection may be silent, or take to accept an answer.
const IDLE: Duration = Duration::from_secs(10);
/// After an error of accepting (no descriptor left).
const PAUSE: Duration = Duration::from_millis(100);
/// Ports are tried until one is free for both protocols.
const TRIES: usize = 8;

/// What all servers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: RwLock<Directory>,
    pub(super) forwarded: Arc<Semaphore>,
}

/// One container, as its server's tasks see it.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) shared: Arc<Shared>,
    view: RwLock<View>,
    way: Way,
    forwarded: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// Sockets that listen, not yet served.
#[derive(Debug)]
pub(super) struct Sockets {
    udp: OwnedFd,
    tcp: OwnedFd,
}

thread_local! {
    /// One for all: a datagram is done with before the next is taken.
    static DATAGRAM: RefCell<[u8; MOST]> = const { RefCell::new([0; MOST]) };
}

/// The address that a container's `resolv.conf` names.
pub(super) fn address(form: ResolverForm) -> Ipv4Addr {
    match form {
        ResolverForm::Loopback => LOOPBACK,
        ResolverForm::Link => LINK,
    }
}

/// Opens the sockets in the calling thread's namespace.
pub(super) fn open(form: ResolverForm) -> io::Result<Sockets> {
    match form {
        ResolverForm::Loopback => {
            let mut last = None;
            for _ in 0..TRIES {
                // Any port: 53 stays the container's own. One for both protocols, as a server's ports are.
                let udp = socket(SocketType::DGRAM, LOOPBACK, 0)?;
                let port = UdpSocket::from(udp.try_clone()?).local_addr()?.port();
                match socket(SocketType::STREAM, LOOPBACK, port) {
                    Ok(tcp) => {
                        redirect::set(LOOPBACK, port, port)?;
                        return Ok(Sockets { udp, tcp });
                    }
                    Err(e) => last = Some(e),
                }
            }
            Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
        }
        // Nobody else listens in that namespace.
        ResolverForm::Link => {
            Socket::open()?.change(links::add_address(LO, LINK.into(), 32))?;
            let (udp, tcp) =
                (socket(SocketType::DGRAM, LINK, PORT)?, socket(SocketType::STREAM, LINK, PORT)?);
            Ok(Sockets { udp, tcp })
        }
    }
}

fn socket(kind: SocketType, address: Ipv4Addr, port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::from((address, port)))?;
    if kind == SocketType::STREAM {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

impl Container {
    pub(super) fn new(shared: Arc<Shared>, view: View, way: Way) -> Self {
        Self {
            shared,
            view: RwLock::new(view),
            way,
            forwarded: Arc::new(Semaphore::new(FORWARDED)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    pub(super) fn set_view(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    fn decide(&self, bytes: &[u8], transport: Transport) -> Verdict {
        let directory = self.shared.directory.read().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        decide(&directory, &view, bytes, transport)
    }

    /// Asks upstream, unless too much is asked already.
    async fn forward(&self, bytes: Vec<u8>, transport: Transport) -> Vec<u8> {
        let permits = (self.forwarded.try_acquire(), self.shared.forwarded.try_acquire());
        let question = Arc::new(bytes);
        let failed = |code| match message::read(&question, transport) {
            Read::Query(query) => query.empty(code),
            Read::Refused(reply) => reply,
            Read::Nothing => Vec::new(),
        };
        let (Ok(_one), Ok(_all)) = permits else { return failed(RCODE::Refused) };
        let upstream = self.view.read().unwrap_or_else(PoisonError::into_inner).upstream.clone();
        let reply = forward::ask(&question, transport, &upstream, &self.way).await;
        reply.unwrap_or_else(|| failed(RCODE::ServerFailure))
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(container: Arc<Container>, sockets: Sockets) {
    let started = || -> io::Result<_> {
        let udp = tokio::net::UdpSocket::from_std(UdpSocket::from(sockets.udp))?;
        let tcp = tokio::net::TcpListener::from_std(TcpListener::from(sockets.tcp))?;
        Ok((udp, tcp))
    };
    match started() {
        Ok((udp, tcp)) => {
            // Tasks of questions end with the server, by its set.
            tokio::join!(datagrams(&container, Arc::new(udp)), connections(&container, tcp));
        }
        Err(e) => tracing::error!("names: {e}"),
    }
}

async fn datagrams(container: &Arc<Container>, socket: Arc<tokio::net::UdpSocket>) {
    let mut asking = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            ready = socket.readable() => if ready.is_err() { return },
            Some(_) = asking.join_next() => continue,
        }
        let taken = DATAGRAM.with_borrow_mut(|buffer| {
            let (n, from) = socket.try_recv_from(buffer)?;
            let bytes = &buffer[..n];
            let forwarded = match container.decide(bytes, Transport::Udp) {
                Verdict::Reply(reply) => {
                    // An asker that takes no more asks again.
                    let _ = socket.try_send_to(&reply, from);
                    None
                }
                Verdict::Forward => Some(bytes.to_vec()),
                Verdict::Nothing => None,
            };
            io::Result::Ok((from, forwarded))
        });
        // Errors are of datagrams that came back, or of none being there.
        if let Ok((from, Some(bytes))) = taken {
            let (container, socket) = (container.clone(), socket.clone());
            asking.spawn(async move {
                let reply = container.forward(bytes, Transport::Udp).await;
                let _ = socket.try_send_to(&reply, from);
            });
        }
    }
}

async fn connections(container: &Arc<Container>, listener: tokio::net::TcpListener) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let Ok(permit) = container.connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let container = container.clone();
                open.spawn(async move {
                    let _permit = permit;
                    let _ = connection(&container, stream).await;
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn connection(container: &Container, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            // No question is longer.
            if length > MOST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes).await?;
            io::Result::Ok(bytes)
        };
        let bytes = timeout(IDLE, read).await??;
        let reply = match container.decide(&bytes, Transport::Tcp) {
            Verdict::Reply(reply) => reply,
            Verdict::Forward => container.forward(bytes, Transport::Tcp).await,
            Verdict::Nothing => return Ok(()),
        };
        let length = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let whole = [&length.to_be_bytes()[..], &reply].concat();
        timeout(IDLE, stream.write_all(&whole)).await??;
    }
}
