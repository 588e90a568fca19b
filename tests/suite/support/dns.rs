//! A small DNS server on a loopback port that says what it is told to. Knows no zone.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

type Records = HashMap<(String, RecordType), Vec<Record>>;

/// A running server; it ends with the value.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    /// `None` while it says nothing at all.
    records: Arc<Mutex<Option<Records>>>,
    asked: Arc<Mutex<Vec<String>>>,
    answering: JoinHandle<()>,
}

impl Dns {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a bound address");
        let records = Arc::new(Mutex::new(Some(Records::new())));
        let asked = Arc::default();
        let answering = tokio::spawn(answer(socket, Arc::clone(&records), Arc::clone(&asked)));
        Self { address, records, asked, answering }
    }

    /// These SRV records of a name from now on: priority, weight, port and target.
    pub(crate) fn srv(&self, name: &str, ttl: u32, records: &[(u16, u16, u16, &str)]) {
        let records = records.iter().map(|(priority, weight, port, target)| {
            let target = Name::from_ascii(target).expect("a name");
            RData::SRV(SRV::new(*priority, *weight, *port, target))
        });
        self.set(name, ttl, RecordType::SRV, records.collect());
    }

    /// This address of a name from now on.
    pub(crate) fn address(&self, name: &str, ttl: u32, address: Ipv4Addr) {
        self.set(name, ttl, RecordType::A, vec![RData::A(A(address))]);
    }

    /// From now on nobody gets an answer.
    pub(crate) fn fall_silent(&self) {
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The names that were asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, name: &str, ttl: u32, kind: RecordType, data: Vec<RData>) {
        let owner = Name::from_ascii(name).expect("a name");
        let data = data.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data));
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.get_or_insert_default().insert((name.to_owned(), kind), data.collect());
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

async fn answer(
    socket: UdpSocket,
    records: Arc<Mutex<Option<Records>>>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut buffer = vec![0_u8; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let Some(query) = question.queries.first().cloned() else { continue };
        let name = query.name().to_ascii().to_ascii_lowercase();
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        let kind = query.query_type();
        answer.add_query(query);
        {
            let records = records.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(records) = &*records else { continue };
            match records.get(&(name, kind)) {
                Some(found) => {
                    answer.add_answers(found.iter().cloned());
                }
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            }
        }
        let bytes = answer.to_vec().expect("an answer");
        drop(socket.send_to(&bytes, peer).await);
    }
}
