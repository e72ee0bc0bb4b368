//! Questions that no container's name answers, asked of the servers upstream.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::inside::Inside;
use super::message::{self, MOST, Read, Relayed, Transport};
use super::record::Upstream;

/// dockerd's patience with one server. An asker's is five seconds, which is what the first two servers have together.
const PATIENCE: Duration = Duration::from_secs(4);
/// A server that has said nothing for so long is not waited for alone.
const NEXT: Duration = Duration::from_millis(1500);
/// dockerd asks three.
const SERVERS: usize = 3;

/// Where sockets to the servers are made.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// `None`: all servers are asked from the host.
    pub(super) namespace: Option<Arc<OwnedFd>>,
    pub(super) inside: Inside,
}

/// The first reply that says something of the name, from servers asked one after the other; `None`: no server has any.
pub(super) async fn ask(
    question: &Arc<Vec<u8>>,
    transport: Transport,
    upstream: &[Upstream],
    way: &Way,
) -> Option<Vec<u8>> {
    let mut waiting = upstream.iter().take(SERVERS);
    let mut asked = JoinSet::new();
    let mut begin = |asked: &mut JoinSet<_>| {
        if let Some(server) = waiting.next() {
            let (question, server, way) = (question.clone(), *server, way.clone());
            asked.spawn(async move {
                let asking = exchange(&question, transport, server, &way);
                timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            });
        }
    };
    begin(&mut asked);
    loop {
        tokio::select! {
            answer = asked.join_next() => match answer? {
                Ok(Ok(Relayed { reply, answered: true })) => return Some(reply),
                _ => begin(&mut asked),
            },
            () = sleep(NEXT) => begin(&mut asked),
        }
    }
}

async fn exchange(question: &[u8], transport: Transport, server: Upstream, way: &Way) -> io::Result<Relayed> {
    let Read::Query(query) = message::read(question, transport) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let id = rand::rng().random();
    let sent = message::forwarded(question, id);
    let kind = match transport {
        Transport::Udp => SocketType::DGRAM,
        Transport::Tcp => SocketType::STREAM,
    };
    let make = move || open(server.address, kind);
    let socket = match &way.namespace {
        Some(namespace) if !server.from_host => way.inside.ask(namespace, make).await?,
        _ => make()?,
    };
    match transport {
        Transport::Udp => {
            let socket = tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?;
            // Connected: the kernel drops what others send, and tells that nobody listens.
            socket.connect(server.address).await?;
            socket.send(&sent).await?;
            let mut buffer = vec![0; MOST];
            loop {
                let n = socket.recv(&mut buffer).await?;
                if let Some(relayed) = query.relayed(buffer[..n].to_vec(), id) {
                    return Ok(relayed);
                }
            }
        }
        Transport::Tcp => {
            let socket = TcpSocket::from_std_stream(TcpStream::from(socket));
            let mut stream = socket.connect(server.address).await?;
            let length = u16::try_from(sent.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            stream.write_all(&[&length.to_be_bytes()[..], &sent].concat()).await?;
            let length = stream.read_u16().await?;
            let mut reply = vec![0; usize::from(length)];
            stream.read_exact(&mut reply).await?;
            query.relayed(reply, id).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
    }
}

/// A socket towards an address, on a port that nobody can foretell.
fn open(to: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let (family, any): (_, SocketAddr) = match to {
        SocketAddr::V4(_) => (AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, 0).into()),
        SocketAddr::V6(_) => (AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, 0).into()),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if kind == SocketType::DGRAM {
        rustix::net::bind(&socket, &any)?;
    }
    Ok(socket)
}
