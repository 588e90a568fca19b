//! The configuration of the demonstration, as text: what an operator would write
//! by hand, pointing at the demo directory and the sample upstream.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::people::{GROUPS, PEOPLE, ROLES, SERVICE};

/// Host name by which a browser on this machine reaches `listen`.
pub(super) fn public_host(listen: IpAddr) -> String {
    match listen.to_canonical() {
        ip if ip.is_unspecified() || ip == IpAddr::from([127, 0, 0, 1]) => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) if ip.is_loopback() => "localhost".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Where the demonstration's parts are.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    /// Holds certificate, key, passwords and all state.
    pub(super) folder: &'a Path,
    /// Where the gateway is to listen.
    pub(super) listen: SocketAddr,
    /// Where the demo directory listens.
    pub(super) directory: SocketAddr,
    /// Where the sample upstream listens.
    pub(super) upstream: SocketAddr,
}

/// The configuration as TOML.
pub(super) fn configuration(places: Places<'_>) -> String {
    let mut text = listeners(places) + &directory(places) + &state(places);
    let Places { listen, upstream, .. } = places;
    // Writing to a String cannot fail.
    let _ = write!(text, "\n[[upstream]]\nname = \"sample\"\nurls = [\"http://{upstream}\"]\n");
    text.push_str(&routes(None));
    let by_address = listen.ip().to_string();
    if listen.is_ipv4() && listen.ip().is_loopback() && public_host(listen.ip()) != by_address {
        text.push_str(
            "\n# The same for a browser that is given the address instead of the name.\n",
        );
        text.push_str(&routes(Some(&by_address)));
    }
    text
}

fn listeners(Places { folder, listen, .. }: Places<'_>) -> String {
    let host = public_host(listen.ip());
    // Port 0 is chosen by the system later; hosts are compared without port anyhow.
    let port = if listen.port() == 0 { String::new() } else { format!(":{}", listen.port()) };
    format!(
        r#"# Made by `bindgate demo`; goes when the demonstration ends.
[server]
listen = ["{listen}"]
public_origin = "https://{host}{port}"
[server.tls]
certificate_file = {certificate}
private_key_file = {key}
[server.limits]
# No balancer has to notice first: Ctrl-C ends it without a pause.
drain_delay = "100ms"
drain_timeout = "2s"

[telemetry]
listen = "127.0.0.1:0"
log_format = "text"
log_level = "warn"
audit_file = {audit}

[headers]
# A throw-away certificate must not bind the browser to https for this name.
hsts = "off"

[login_page]
title = "bindgate demo"
notice = "A demonstration on your own machine. Users and passwords stand where it was started."
"#,
        certificate = quoted(&folder.join(super::CERTIFICATE)),
        key = quoted(&folder.join(super::PRIVATE_KEY)),
        audit = quoted(&folder.join("audit.jsonl")),
    )
}

fn directory(Places { folder, directory, .. }: Places<'_>) -> String {
    let mut text = format!(
        r#"
[directory]
kind = "ldap"
urls = ["ldaps://{directory}"]
ca_file = {authority}
bind_dn = "{SERVICE}"
bind_password_file = {password}
base_dn = "{PEOPLE}"
user_attribute = "uid"
user_filter = "(objectClass=inetOrgPerson)"
subject_attribute = "uid"
group_base_dn = "{GROUPS}"
nested_groups = true
"#,
        authority = quoted(&folder.join(super::AUTHORITY)),
        password = quoted(&folder.join(super::BIND_PASSWORD)),
    );
    for (role, group) in ROLES {
        let _ = write!(text, "[[directory.role]]\nname = \"{role}\"\ngroup = \"{group}\"\n");
    }
    let issuers = ROLES.map(|(role, _)| format!("{role:?}")).join(", ");
    let _ = write!(text, "\n[access_codes]\nenabled = true\nissuer_roles = [{issuers}]\n");
    text
}

fn state(Places { folder, .. }: Places<'_>) -> String {
    format!(
        "\n[token]\nkeys_dir = {keys}\n\n[store]\nkind = \"embedded\"\npath = {store}\n",
        keys = quoted(&folder.join(super::KEYS)),
        store = quoted(&folder.join("state.redb")),
    )
}

fn routes(host: Option<&str>) -> String {
    let rows = [
        ("/public/**", r#"access = "public""#),
        ("/admin/**", r#"roles = ["super_admin", "admin"]"#),
        ("/codes/**", r#"roles = ["access_code"]"#),
        ("/**", r#"access = "authenticated""#),
    ];
    let host = host.map(|host| format!("host = \"{host}\"\n")).unwrap_or_default();
    let row = |(path, who)| {
        format!("\n[[route]]\n{host}path = \"{path}\"\n{who}\nupstream = \"sample\"\n")
    };
    rows.map(row).concat()
}

/// A TOML basic string; JSON's escapes are among TOML's.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Places, configuration, public_host};

    fn parsed(listen: &str) -> figment::value::Value {
        use figment::Provider as _;
        use figment::providers::{Format as _, Toml};

        let address = |text: &str| text.parse().unwrap();
        let text = configuration(Places {
            folder: Path::new("/tmp/a \"b\""),
            listen: address(listen),
            directory: address("127.0.0.1:1636"),
            upstream: address("127.0.0.1:3000"),
        });
        let data = Toml::string(&text).data().unwrap();
        figment::value::Value::from(data[&figment::Profile::Default].clone())
    }

    fn text(value: &figment::value::Value, path: &str) -> String {
        value.find_ref(path).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn it_points_at_the_parts_whatever_the_folder_is_called() {
        let value = parsed("127.0.0.1:8443");
        assert_eq!(text(&value, "server.public_origin"), "https://localhost:8443");
        assert_eq!(text(&value, "store.path"), "/tmp/a \"b\"/state.redb");
        assert_eq!(value.find_ref("route").unwrap().as_array().unwrap().len(), 8);
        let urls = value.find_ref("directory.urls").unwrap().as_array().unwrap();
        assert_eq!(urls[0].as_str(), Some("ldaps://127.0.0.1:1636"));
    }

    #[test]
    fn a_port_of_the_systems_choice_is_not_in_the_origin() {
        let value = parsed("[::1]:0");
        assert_eq!(text(&value, "server.public_origin"), "https://localhost");
        assert_eq!(value.find_ref("route").unwrap().as_array().unwrap().len(), 4);
    }

    #[test]
    fn the_public_host_is_one_that_reaches_the_listener() {
        for (listen, host) in [
            ("127.0.0.1", "localhost"),
            ("::1", "localhost"),
            ("0.0.0.0", "localhost"),
            ("::", "localhost"),
            ("127.0.0.2", "127.0.0.2"),
            ("2001:db8::1", "[2001:db8::1]"),
        ] {
            assert_eq!(public_host(listen.parse().unwrap()), host, "{listen}");
        }
    }
}
