//! What a message is answered by: from the directory at once, or by servers upstream.

use std::net::IpAddr;

use rand::Rng;
use simple_dns::RCODE;

use super::directory::Directory;
use super::message::{self, Asked, Query, Read, Transport};
use super::record::{NamedEndpoint, View};

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This goes to the asker.
    Reply(Vec<u8>),
    /// The message is to be asked upstream.
    Forward,
    /// Nothing goes to the asker.
    Nothing,
}

/// Decides about a message as it came.
pub(super) fn decide(directory: &Directory, view: &View, bytes: &[u8], transport: Transport) -> Verdict {
    let query = match message::read(bytes, transport) {
        Read::Query(query) => query,
        Read::Refused(reply) => return Verdict::Reply(reply),
        Read::Nothing => return Verdict::Nothing,
    };
    match known(directory, view, &query) {
        Some(reply) => Verdict::Reply(reply),
        // An empty answer: the asker tries its search list.
        None if view.ndots && single(&query) => Verdict::Reply(query.empty(RCODE::NoError)),
        None if view.upstream.is_empty() => Verdict::Reply(query.empty(RCODE::ServerFailure)),
        None => Verdict::Forward,
    }
}

fn single(query: &Query<'_>) -> bool {
    matches!(query.asked(), Asked::A | Asked::Aaaa) && query.name.as_ref().is_some_and(|n| !n.contains('.'))
}

/// The reply of what a container has to do with; `None`: no container has.
fn known(directory: &Directory, view: &View, query: &Query<'_>) -> Option<Vec<u8>> {
    let asked = query.asked();
    match asked {
        Asked::Foreign => return None,
        Asked::Ptr(address) => return directory.reverse(view, address).map(|name| query.pointer(name)),
        Asked::A | Asked::Aaaa | Asked::Other => {}
    }
    let found = directory.find(view, query.name.as_ref()?)?;
    let mut addresses: Vec<IpAddr> = found
        .into_iter()
        .filter(|a| matches!((asked, a), (Asked::A, IpAddr::V4(_)) | (Asked::Aaaa, IpAddr::V6(_))))
        .collect();
    if addresses.len() > 1 {
        // Begins with each as often: most programs take the first.
        let first = rand::rng().random_range(0..addresses.len());
        addresses.rotate_left(first);
    }
    Some(query.addresses(&addresses))
}

/// The law of the fuzz target `dns_message`: any bytes are answered within bounds and by an answer, whoever knows the
/// name; what is no reply to a question is relayed to nobody.
///
/// # Panics
/// If it does not hold.
pub fn fuzz_dns_message(bytes: &[u8]) {
    let mut directory = Directory::default();
    let addresses: Vec<IpAddr> = (0..200u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    directory.set(NamedEndpoint {
        network_id: "n".into(),
        network: "net".into(),
        endpoint_id: "e".into(),
        container_id: "c".into(),
        names: vec!["web".into(), "a.b".into()],
        addresses,
        primary: "web.net".into(),
    });
    let view = View { networks: vec!["n".into()], ..View::default() };
    for transport in [Transport::Udp, Transport::Tcp] {
        match decide(&directory, &view, bytes, transport) {
            Verdict::Reply(reply) => {
                assert!(bytes.len() >= 12 && bytes[2] & 0x80 == 0, "an answer to no question");
                assert!(reply.len() >= 12 && reply[..2] == bytes[..2] && reply[2] & 0x80 != 0);
                assert!(transport == Transport::Tcp || reply.len() <= message::MOST);
            }
            Verdict::Nothing => assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
            Verdict::Forward => panic!("there is nobody upstream"),
        }
        // The same bytes as a question and as what a server says to it.
        if let Read::Query(query) = message::read(bytes, transport) {
            let mut answer = bytes.to_vec();
            answer[2] |= 0x80;
            let id = u16::from_be_bytes([bytes[0], bytes[1]]);
            if let Some(relayed) = query.relayed(answer.clone(), id) {
                assert!(relayed.reply.len() <= query.room);
            }
            assert!(query.relayed(answer, id.wrapping_add(1)).is_none());
            assert!(query.relayed(bytes.to_vec(), id).is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::RData;
    use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

    use super::super::record::Upstream;
    use super::*;

    fn directory(services: u8) -> Directory {
        let mut directory = Directory::default();
        for n in 1..=services {
            directory.set(NamedEndpoint {
                network_id: "n".into(),
                network: "net".into(),
                endpoint_id: format!("e{n}"),
                container_id: format!("c{n}"),
                names: vec![format!("web{n}"), "svc".into()],
                addresses: vec![IpAddr::from([10, 0, 0, n])],
                primary: format!("web{n}.net"),
            });
        }
        directory
    }

    fn view() -> View {
        let upstream = Upstream { address: "10.9.9.9:53".parse().unwrap(), from_host: false };
        View { networks: vec!["n".into()], upstream: vec![upstream], ..View::default() }
    }

    fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(77);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(name).unwrap();
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        packet.build_bytes_vec().unwrap()
    }

    /// `forward`, or the code and the sorted answers.
    fn said(verdict: &Verdict) -> String {
        let Verdict::Reply(reply) = verdict else { return format!("{verdict:?}").to_lowercase() };
        let packet = Packet::parse(reply).unwrap();
        assert!(packet.id() == 77 && packet.has_flags(PacketFlag::RECURSION_AVAILABLE));
        let mut answers: Vec<String> = packet
            .answers
            .iter()
            .map(|record| match &record.rdata {
                RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
                RData::PTR(name) => name.0.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        answers.sort();
        format!("{:?} {}", packet.rcode(), answers.join(" ")).trim_end().to_owned()
    }

    #[test]
    fn names_of_containers_are_answered_here_and_no_other() {
        let directory = directory(2);
        let check = |name: &str, kind: TYPE, expected: &str| {
            let verdict = decide(&directory, &view(), &question(name, kind), Transport::Udp);
            assert_eq!(said(&verdict), expected, "{name} {kind:?}");
        };
        check("web1", TYPE::A, "NoError 10.0.0.1");
        check("WEB1.", TYPE::A, "NoError 10.0.0.1");
        check("web1.net", TYPE::A, "NoError 10.0.0.1");
        check("svc", TYPE::A, "NoError 10.0.0.1 10.0.0.2");
        check("web1", TYPE::AAAA, "NoError");
        check("web1", TYPE::MX, "NoError");
        check("2.0.0.10.in-addr.arpa", TYPE::PTR, "NoError web2.net");
        check("3.0.0.10.in-addr.arpa", TYPE::PTR, "forward");
        check("0.0.10.in-addr.arpa", TYPE::PTR, "forward");
        check("web3", TYPE::A, "forward");
        check("web1.other", TYPE::A, "forward");
        check("example.com", TYPE::TXT, "forward");
    }

    #[test]
    fn without_servers_upstream_and_with_ndots_nothing_is_forwarded() {
        let directory = directory(1);
        let alone = View { upstream: Vec::new(), ..view() };
        let verdict = |view: &View, name| decide(&directory, view, &question(name, TYPE::A), Transport::Udp);
        assert_eq!(said(&verdict(&alone, "example.com")), "ServerFailure");
        let ndots = View { ndots: true, ..view() };
        assert_eq!(said(&verdict(&ndots, "intranet")), "NoError");
        assert_eq!(said(&verdict(&ndots, "example.com")), "forward");
    }

    #[test]
    fn each_of_a_service_comes_first() {
        let directory = directory(3);
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let verdict = decide(&directory, &view(), &question("svc", TYPE::A), Transport::Udp);
            let Verdict::Reply(reply) = verdict else { panic!("{verdict:?}") };
            first.insert(format!("{:?}", Packet::parse(&reply).unwrap().answers[0].rdata));
        }
        assert_eq!(first.len(), 3, "{first:?}");
    }

    #[test]
    fn an_answer_that_is_too_long_says_so_and_goes_over_tcp_as_a_whole() {
        let directory = directory(100);
        let asked = question("svc", TYPE::A);
        let count = |bytes: &[u8], transport| {
            let verdict = decide(&directory, &view(), bytes, transport);
            let Verdict::Reply(reply) = verdict else { panic!("{verdict:?}") };
            let packet = Packet::parse(&reply).unwrap();
            (reply.len(), packet.answers.len(), packet.has_flags(PacketFlag::TRUNCATION))
        };
        let (length, answers, truncated) = count(&asked, Transport::Udp);
        assert!(length <= 512 && answers > 20 && truncated, "{length} {answers}");
        let (_, answers, truncated) = count(&asked, Transport::Tcp);
        assert!(answers == 100 && !truncated);
        let mut packet = Packet::parse(&asked).unwrap();
        let opt = simple_dns::rdata::OPT { opt_codes: vec![], udp_packet_size: 1232, version: 0 };
        *packet.opt_mut() = Some(opt);
        let (length, answers, truncated) = count(&packet.build_bytes_vec().unwrap(), Transport::Udp);
        assert!((513..=1232).contains(&length) && answers > 60 && truncated, "{length} {answers}");
    }

    #[test]
    fn what_is_no_question_is_refused_or_met_with_silence() {
        let directory = directory(1);
        let decided = |bytes: &[u8]| decide(&directory, &view(), bytes, Transport::Udp);
        let good = question("web1", TYPE::A);
        assert_eq!(decided(&good[..11]), Verdict::Nothing);
        let code = |bytes: &[u8]| match decided(bytes) {
            Verdict::Reply(reply) => reply[3] & 0x0f,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&good[..14]), 1);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        assert_eq!(decided(&with(2, 0x81)), Verdict::Nothing, "an answer");
        assert_eq!(code(&with(2, 0x28)), 4, "an update");
        assert_eq!(code(&with(4, 0xff)), 1, "many questions");
        assert_eq!(code(&with(6, 0xff)), 1, "many answers");
        // A pointer to itself.
        assert_eq!(code(&[&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat()), 1);
    }
}
