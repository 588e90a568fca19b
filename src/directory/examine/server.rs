//! One server on the way of a login: its name, its addresses, the connection, TLS,
//! the service account's bind, and what kind of server it says it is. Knows no person.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};

use crate::ambient::Timestamp;
use crate::config;
use crate::directory::chain;
use crate::directory::connection::Connection;
use crate::directory::discovery::Discovery;
use crate::directory::endpoint::{Endpoint, tls_connector};
use crate::directory::entry::Entry;
use crate::directory::examine::{Examination, Finding, base_search, object_class};
use crate::directory::filter::Filter;
use crate::directory::outcome::{Outcome, Rejection};
use crate::directory::{DirectoryError, guard};

/// Active Directory says so of itself in its root entry.
const ACTIVE_DIRECTORY: &str = "1.2.840.113556.1.4.800";
const SUPPORTED_CAPABILITIES: &str = "supportedCapabilities";

/// One server, from its name to a connection bound as the service account.
pub(super) async fn reach(
    examination: &mut Examination<'_>,
    config: &config::Directory,
    (server, found): (&config::LdapServer, Option<&Arc<Discovery>>),
) -> Option<Connection> {
    let is_active = config.kind == config::DirectoryKind::ActiveDirectory;
    let name = format!("{}:{}", server.host, server.port);
    let place = name.as_str();
    let prepared = tls_connector(config.authorities.as_deref())
        .and_then(|connector| Endpoint::new(server, &connector, is_active, found));
    let endpoint = match prepared {
        Ok(endpoint) => endpoint,
        Err(error) => {
            examination.note(place, "prepare", Finding::Failed(error.to_string()));
            return None;
        }
    };
    let addresses = examination.step((place, "resolve"), resolve(server, found)).await?;
    let stream = examination.step((place, "connect"), connect(&addresses)).await?;
    let now = examination.now;
    let securing = Box::pin(secure(&endpoint, stream, now));
    let connection = examination.step((place, "secure"), securing).await?;
    examination.step((place, "service bind"), bind(&connection, config)).await?;
    examination.step((place, "root entry"), root(&connection, is_active)).await;
    Some(connection)
}

async fn resolve(
    server: &config::LdapServer,
    found: Option<&Arc<Discovery>>,
) -> Result<(Vec<SocketAddr>, Finding), Finding> {
    let addresses: Vec<SocketAddr> = match found {
        Some(found) => found.addresses(server).await.map_err(|error| {
            Finding::Failed(format!("{error}: DNS names the server, but not its address"))
        })?,
        None => lookup_host((server.host.as_str(), server.port))
            .await
            .map_err(|error| {
                Finding::Failed(format!("{error}: is the name in directory.urls spelled right?"))
            })?
            .collect(),
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    if addresses.is_empty() {
        return Err(Finding::Failed("the name has no address".to_owned()));
    }
    Ok((addresses, Finding::Fine(shown.join(", "))))
}

async fn connect(addresses: &[SocketAddr]) -> Result<(TcpStream, Finding), Finding> {
    let stream = TcpStream::connect(addresses).await.map_err(|error| {
        Finding::Failed(format!(
            "{error}: is the server running, the port right, a firewall between?"
        ))
    })?;
    stream.set_nodelay(true).map_err(|error| Finding::Failed(error.to_string()))?;
    let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    Ok((stream, Finding::Fine(peer)))
}

/// TLS as configured, and what the server shows of itself.
async fn secure(
    endpoint: &Endpoint,
    mut stream: TcpStream,
    now: Timestamp,
) -> Result<(Connection, Finding), Finding> {
    let lost = |error: DirectoryError| Finding::Failed(error.to_string());
    if endpoint.server.transport == config::LdapTransport::StartTls {
        guard::start_tls(&mut stream).await.map_err(|error| {
            Finding::Failed(format!("{error}: does the server know StartTLS? ldaps:// may do"))
        })?;
    }
    let Some((connector, name)) = &endpoint.tls else {
        let connection = endpoint.speak(stream).await.map_err(lost)?;
        let text = "plain text: passwords are readable on the way".to_owned();
        return Ok((connection, Finding::Suspect(text)));
    };
    let stream = connector
        .connect(name.clone(), stream)
        .await
        .map_err(|error| Finding::Failed(chain::trouble(&error)))?;
    let (_, session) = stream.get_ref();
    let shown = chain::describe(session.peer_certificates().unwrap_or_default(), now);
    let connection = endpoint.speak(stream).await.map_err(lost)?;
    Ok((connection, shown))
}

async fn bind(
    connection: &Connection,
    config: &config::Directory,
) -> Result<((), Finding), Finding> {
    let dn = &config.bind_dn;
    let answer = connection.bind(dn, &config.bind_password).await.map_err(|error| {
        Finding::Failed(format!("{error}: may {dn} bind over this kind of connection?"))
    })?;
    match answer.outcome {
        Outcome::Accepted(None) => Ok(((), Finding::Fine(dn.clone()))),
        Outcome::Accepted(Some(notice)) => Ok(((), Finding::Suspect(notice.detail()))),
        Outcome::ChangeRequired(_) => Err(Finding::Failed(format!(
            "the password of {dn} must be changed before it can be used"
        ))),
        Outcome::Barred(bar) => Err(Finding::Failed(format!(
            "{dn} is barred ({}): let an administrator of the directory open it",
            bar.label()
        ))),
        Outcome::Rejected(Rejection::WrongPassword) => Err(Finding::Failed(format!(
            "result {}: directory.bind_dn or its password is wrong ({dn})",
            answer.code
        ))),
        Outcome::Rejected(rejection) => Err(Finding::Failed(format!(
            "{dn} is rejected ({}): is directory.bind_dn an account that may log in, and not \
                 locked?",
            rejection.label()
        ))),
    }
}

/// What kind of server it says it is.
async fn root(connection: &Connection, is_active: bool) -> Result<((), Finding), Finding> {
    let filter = Filter::Present(object_class()?);
    let search = base_search("", &filter, &[SUPPORTED_CAPABILITIES]);
    let entry = match connection.search(&search).await {
        Ok(found) => found.entries.into_iter().next(),
        Err(DirectoryError::Refused { code, .. }) => {
            return Ok(((), Finding::Fine(format!("hidden (result {code})"))));
        }
        Err(error) => return Err(Finding::Failed(error.to_string())),
    };
    let says = entry.is_some_and(|entry| says_active_directory(&entry));
    Ok(((), match (says, is_active) {
        (true, true) => Finding::Fine("Active Directory".to_owned()),
        (false, false) => Finding::Fine("answers".to_owned()),
        (true, false) => Finding::Suspect(
            "this is Active Directory: directory.kind = \"active_directory\" reads its bind codes, \
             names and groups"
                .to_owned(),
        ),
        (false, true) => Finding::Suspect(
            "it does not say that it is Active Directory: should directory.kind be \"ldap\"?"
                .to_owned(),
        ),
    }))
}

fn says_active_directory(entry: &Entry) -> bool {
    entry.values(SUPPORTED_CAPABILITIES).iter().any(|value| value == ACTIVE_DIRECTORY.as_bytes())
}
