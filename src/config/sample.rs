//! A configuration for tests: two hosts, three roles.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::{
    Access, Config, Cookie, Delivery, Directory, DirectoryKind, HeaderPreset, Headers, Limits,
    LogFormat, LogLevel, LoginPage, LoginThrottle, Origin, PasswordRules, Rate, RoleMapping, Route,
    SameSite, Server, Store, Telemetry, Tls, TlsVersion, Token, TokenAlgorithm, Upstream,
};
use crate::identity::{ClaimTemplates, Role};
use crate::secret::Secret;

/// The public origin's host.
pub(crate) const HOME: &str = "home.example";

/// A route of the public origin: `"GET,PUT /path"` or `"/path"`, and `"public"`,
/// `"authenticated"` or roles.
pub(crate) fn route(line: &str, access: &str) -> Route {
    let (methods, path) = line.split_once(' ').unwrap_or(("", line));
    let names = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
    Route {
        label: line.to_owned(),
        host: None,
        path: path.to_owned(),
        methods: (!methods.is_empty()).then(|| names(methods)),
        access: match access {
            "public" => Access::Public,
            "authenticated" => Access::Authenticated,
            roles => Access::Roles(names(roles).iter().map(|name| Role::new(name)).collect()),
        },
        upstream: 0,
        passive: false,
        guess_guard: None,
        throttle: Vec::new(),
        body_bytes: None,
        response_timeout: None,
    }
}

/// The same for another host.
pub(crate) fn route_of(host: &str, line: &str, access: &str) -> Route {
    Route { host: Some(host.to_owned()), ..route(line, access) }
}

/// A configuration with these routes, whose directory gives the roles `tracer`,
/// `admin` and `access_code`.
pub(crate) fn config(routes: Vec<Route>) -> Config {
    let role = |name| RoleMapping { name: Role::new(name), group: format!("cn={name}") };
    Config {
        server: server(),
        telemetry: Telemetry {
            listen: address(),
            log_format: LogFormat::Json,
            log_level: LogLevel::Info,
            audit_file: None,
            audit_requests: true,
            audit_required: true,
            control_socket: None,
        },
        directory: Some(directory(["tracer", "admin", "access_code"].map(role).to_vec())),
        token: Token {
            algorithm: TokenAlgorithm::Hs256,
            lifetime: Duration::from_mins(15),
            session_lifetime: Duration::from_hours(12),
            idle_timeout: Duration::from_hours(1),
            replay_grace: Duration::from_mins(1),
            keys_dir: None,
            delivery: Delivery::Cookie,
            rotate_every: None,
            sessions_per_user: None,
            claims: ClaimTemplates::default(),
            login_response: serde_json::Map::new(),
        },
        cookie: Cookie {
            context_name: "context".to_owned(),
            token_name: "token".to_owned(),
            device_name: "device".to_owned(),
            same_site: SameSite::Strict,
        },
        throttle: LoginThrottle {
            per_user: Rate { count: 5, window: Duration::from_mins(15) },
            per_address: Rate { count: 30, window: Duration::from_mins(5) },
            accounts_per_address: Rate { count: 20, window: Duration::from_mins(15) },
            directory_lockout: None,
            lockout_margin: 2,
            device_reserve: 2,
            devices: 1000,
            refusal_after: Duration::from_millis(500),
            logins: 100,
            entries: 1000,
        },
        access_codes: None,
        store: Store::Memory,
        headers: Headers {
            user: HeaderName::from_static("x-auth-user"),
            role: HeaderName::from_static("x-auth-role"),
            reference: HeaderName::from_static("x-auth-reference"),
            preset: HeaderPreset::None,
            hsts: None,
            content_type_options: true,
            frame_options: None,
            referrer_policy: None,
            permissions_policy: None,
        },
        login_page: LoginPage { title: String::new(), notice: String::new() },
        upstreams: vec![upstream()],
        routes,
    }
}

fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn server() -> Server {
    Server {
        listen: vec![address()],
        plain_http_listen: None,
        public_origin: Origin { host: HOME.to_owned(), port: None },
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
        workers: 1,
        auth_prefix: "/auth".to_owned(),
        login_aliases: Vec::new(),
        cors_origins: Vec::new(),
        tls: Tls {
            certificates: Vec::new(),
            private_key: Arc::new(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(Vec::new()))),
            min_version: TlsVersion::Tls12,
            client: None,
            certificate_file: PathBuf::new(),
        },
        jwks_listen: address(),
        jwks_allow: Vec::new(),
        limits: Limits::default(),
    }
}

fn directory(roles: Vec<RoleMapping>) -> Directory {
    Directory {
        kind: DirectoryKind::Ldap,
        users: None,
        password_checks: 4,
        break_glass: None,
        servers: Vec::new(),
        discovery: None,
        authorities: None,
        bind_dn: String::new(),
        bind_password: Secret::new(String::new()),
        base_dn: String::new(),
        user_attribute: String::new(),
        user_filter: None,
        subject_attribute: String::new(),
        group_base_dn: String::new(),
        nested_groups: false,
        timeout: Duration::from_secs(5),
        recheck_interval: Duration::from_mins(5),
        recheck_grace: Duration::from_hours(1),
        bind_connections: 32,
        idle_timeout: Duration::from_secs(30),
        searches_ahead: 5000,
        attributes: Vec::new(),
        password_rules: PasswordRules::default(),
        roles,
    }
}

fn upstream() -> Upstream {
    Upstream {
        name: "backend".to_owned(),
        servers: Vec::new(),
        strip_cookies: Vec::new(),
        strip_headers: Vec::new(),
        set_headers: BTreeMap::new(),
        allow_headers: Vec::new(),
        path_parameters: false,
        assertion: None,
        hide_errors: false,
        connect_timeout: Duration::from_secs(3),
        response_timeout: Duration::from_mins(1),
        idle_timeout: Duration::from_secs(4),
        connections: 100,
    }
}
