//! What must hold between keys and sections, and what is merely noted.

use super::{Folder, SMALL, only, replaced, with};
use crate::config::{DirectoryKind, LdapTransport, Loaded};

#[test]
fn what_contradicts_itself_is_refused() {
    let folder = Folder::new();
    let cases: &[(&str, &str, &[&str])] = &[
        ("[token]", "idle_timeout = \"14m\"", &["token.idle_timeout: found \"14m\"", "\"15m\""]),
        ("[token]", "lifetime = \"13h\"\nidle_timeout = \"13h\"", &["token.lifetime", "\"12h\""]),
        ("[token]", "lifetime = \"1500ms\"", &["token.lifetime", "whole seconds"]),
        ("[directory]", "start_tls = true", &["directory.start_tls", "ldaps://"]),
        ("[directory]", "user_filter = \"(a=b\"", &["directory.user_filter", "filter"]),
        ("[directory]", "user_attribute = \"u)(\"", &["directory.user_attribute"]),
        ("[token]", "claims = { exp = 1 }", &["token.claims", "\"exp\"", "sets itself"]),
        ("[token]", "claims = { a = [\"{user}\"] }", &["token.claims", "{user}", "sub, role"]),
        ("[token]", "claims = \"all\"", &["token.claims", "a table"]),
        ("[token]", "login_response = { token = \"x\" }", &["token.login_response", "\"token\""]),
        ("[server]", "trusted_proxies = [\"everybody\"]", &["server.trusted_proxies"]),
        ("[server]", "auth_prefix = \"/\"", &["server.auth_prefix"]),
        ("[server.tls]", "min_version = \"1.1\"", &["server.tls.min_version", "\"1.2\", \"1.3\""]),
        ("[[upstream]]", "set_headers = { X-Auth-User = \"x\" }", &["set_headers", "who is"]),
        ("[[upstream]]", "set_headers = { x_auth_role = \"x\" }", &["set_headers", "who is"]),
        ("[[upstream]]", "allow_headers = [\"X-Auth-User\"]", &["allow_headers"]),
        ("[server]", "jwks_listen = \"0.0.0.0:9465\"", &["server.jwks_listen", "jwks_allow"]),
        ("[server]", "jwks_listen = \"127.0.0.1:9464\"", &["jwks_listen", "telemetry.listen"]),
        ("[[route]]", "roles = [\"admin\"]", &["route.access", "exactly one"]),
        ("[[route]]", "host = \"a:443\"", &["route.host"]),
        ("[[route]]", "throttle = [\"5 per 1m\"]", &["route.throttle", "per address"]),
        ("[[route]]", "body_bytes = \"0B\"", &["route.body_bytes", "\"1B\""]),
        ("[[route]]", "response_timeout = \"0s\"", &["route.response_timeout", "not zero"]),
        ("[server]", "cors_origins = [\"*\"]", &["server.cors_origins", "never"]),
        ("[server]", "cors_origins = [\"https://a.example/\"]", &["server.cors_origins"]),
    ];
    for (header, line, words) in cases {
        only(&folder.lines(&with(header, line)), words);
    }
    let shared = "[telemetry]\nlisten = \"0.0.0.0:443\"";
    let text = replaced("127.0.0.1:0", "127.0.0.1:443");
    only(&folder.lines(&format!("{text}\n{shared}")), &["telemetry.listen", "127.0.0.1:443"]);
    for limit in ["connections = 0", "header_timeout = \"0s\"", "header_bytes = \"1KiB\""] {
        let text = format!("{SMALL}\n[server.limits]\n{limit}");
        only(&folder.lines(&text), &["server.limits."]);
    }
    for (section, words) in [
        ("[cookie]\ntoken_name = \"a\"\ndevice_name = \"A\"", ["cookie.device_name", "token_name"]),
        ("[cookie]\ntoken_name = \"__Host-\"", ["cookie.token_name", "prefix"]),
        ("[headers]\nuser = \"X_A\"\nrole = \"X-A\"", ["headers.role", "headers.user"]),
        ("[headers]\nrole = \"X-Auth-User\"", ["headers.role", "headers.user"]),
        ("[headers]\nrole = \"Remote-User\"\npreset = \"remote\"", ["headers.role", "preset"]),
        ("[headers]\nhsts = \"yes\"", ["headers.hsts", "max-age"]),
        ("[headers]\ncontent_type_options = \"on\"", ["headers.content_type_options", "nosniff"]),
        ("[headers]\nframe_options = \"deny\"", ["headers.frame_options", "\"DENY\""]),
        ("[headers]\nreferrer_policy = \"none\"", ["headers.referrer_policy", "no-referrer"]),
        ("[headers]\npermissions_policy = \"camera\"", ["headers.permissions_policy", "camera=()"]),
        ("[throttle]\nlogin_per_user = \"5\"", ["throttle.login_per_user", "5 per 15m"]),
        ("[login_page]\ntitle = \"\"", ["login_page.title", "not empty"]),
    ] {
        let lines = folder.lines(&format!("{SMALL}\n{section}\n"));
        only(&lines, &words);
    }
}

/// `SMALL` with an assertion of these further keys.
fn asserting(keys: &str) -> String {
    let assertion = format!("assertion = {{ audience = \"them\", {keys} }}");
    with("[[upstream]]", &assertion)
}

#[test]
fn an_assertion_that_cannot_be_safe_is_refused() {
    let folder = Folder::new();
    folder.write("long-secret", &"x".repeat(32));
    for (keys, words) in [
        ("publish = \"public\"", &["upstream.assertion.deliver", "nothing"][..]),
        ("deliver = \"header:Authorization\"", &["assertion.deliver", "bearer"]),
        ("deliver = \"header:X_Auth_User\"", &["assertion.deliver", "[headers]"]),
        ("deliver = \"bearer\", secret_file = \"secret\"", &["secret_file", "HS256"]),
        ("deliver = \"bearer\", algorithm = \"HS256\"", &["secret_file", "nothing"]),
        (
            "deliver = \"bearer\", algorithm = \"HS256\", secret_file = \"secret\"",
            &["secret_file", "7 bytes", "at least 32"],
        ),
        (
            "deliver = \"bearer\", algorithm = \"HS256\", secret_file = \"long-secret\", \
             publish = \"internal\"",
            &["assertion.publish", "shared secret"],
        ),
        ("deliver = \"bearer\", algorithm = \"none\"", &["assertion.algorithm", "RS256"]),
        ("deliver = \"bearer\", typ = \"bindgate-session+jwt\"", &["assertion.typ"]),
        ("deliver = \"bearer\", claims = { exp = 1 }", &["assertion.claims", "\"exp\""]),
        ("deliver = \"bearer\", claims = { a = [\"{user}\"] }", &["assertion.claims", "{user}"]),
        ("deliver = \"bearer\", lifetime = \"500ms\"", &["assertion.lifetime", "seconds"]),
    ] {
        only(&folder.lines(&asserting(keys)), words);
    }
    let text = asserting("deliver = \"header:X-A\"");
    let text =
        text.replace("name = \"backend\"", "name = \"backend\"\nset_headers = { x_a = \"b\" }");
    only(&folder.lines(&text), &["set_headers", "x_a"]);
    let text = asserting("deliver = \"bearer\", algorithm = \"HS256\", secret_file = \"secret\"");
    folder.write("secret", &"x".repeat(32));
    only(&folder.lines(&text), &["upstream.assertion", "the directory's password"]);
}

#[test]
fn the_directory_fetches_what_claims_ask_for() {
    let folder = Folder::new();
    let claims =
        "deliver = \"bearer\", claims = { a = \"{attr:mail}\", b = [\"{attr:MAIL} {attr:sn}\"] }";
    let Loaded { config, .. } = folder.load(&asserting(claims), &[]).unwrap();
    assert_eq!(config.directory.as_ref().unwrap().attributes, ["mail", "sn"]);
    assert_eq!(config.jwks_address(), Some(config.server.jwks_listen));
    let assertion = config.upstreams[0].assertion.as_ref().unwrap();
    assert_eq!(assertion.issuer, "https://safeplaces.example.org");
    let many = (0..33).map(|number| format!("a{number} = \"{{attr:a{number}}}\""));
    let many = many.collect::<Vec<_>>().join(", ");
    let text = asserting(&format!("deliver = \"bearer\", claims = {{ {many} }}"));
    only(&folder.lines(&text), &["33 attributes", "at most 32"]);
    let public = "deliver = \"bearer\", publish = \"public\"";
    assert_eq!(folder.load(&asserting(public), &[]).unwrap().config.jwks_address(), None);
}

#[test]
fn active_directory_asks_for_less_and_takes_no_more() {
    let folder = Folder::new();
    let active = |text: &str| text.replacen("\"ldap\"", "\"active_directory\"", 1);
    let without_groups = active(SMALL).replacen("group_base_dn", "# group_base_dn", 1);
    let directory = folder.load(&without_groups, &[]).unwrap().config.directory.unwrap();
    assert_eq!(directory.kind, DirectoryKind::ActiveDirectory);
    assert_eq!(directory.subject_attribute, "objectGUID");
    only(&folder.lines(&active(SMALL)), &["directory.group_base_dn", "counts the groups itself"]);
    for line in ["user_attribute = \"uid\"", "nested_groups = true"] {
        let key = line.split(' ').next().unwrap();
        let text = without_groups.replacen("[directory]", &format!("[directory]\n{line}"), 1);
        only(&folder.lines(&text), &[key, "Active Directory"]);
    }
    let named = "[directory]\nsubject_attribute = \"uid\"";
    let named = folder.load(&without_groups.replacen("[directory]", named, 1), &[]).unwrap();
    assert_eq!(named.config.directory.unwrap().subject_attribute, "uid");
    let ldap = SMALL.replacen("group_base_dn", "# group_base_dn", 1);
    only(&folder.lines(&ldap), &["directory.group_base_dn", "nothing", "distinguished name"]);
}

#[test]
fn plaintext_to_the_directory_needs_loopback_and_a_word() {
    let folder = Folder::new();
    let plain = |url: &str, allow: bool| {
        let text = with("[directory]", &format!("allow_plaintext = {allow}"));
        folder.load(&text.replace("ldaps://dc1.example.org", url), &[])
    };
    assert!(plain("ldap://dc1.example.org", true).is_err());
    assert!(plain("ldap://127.0.0.1:1389", false).is_err());
    let Loaded { config, notes } = plain("ldap://127.0.0.1:1389", true).unwrap();
    assert_eq!(config.directory.unwrap().servers[0].transport, LdapTransport::Plaintext);
    assert!(notes.iter().any(|note| note.contains("in clear")));
    assert!(plain("ldap://[::1]", true).is_ok());
}

#[test]
fn a_domain_stands_alone_is_active_directory_and_is_never_asked_in_clear() {
    let folder = Folder::new();
    let active = SMALL.replace("kind = \"ldap\"", "kind = \"active_directory\"").replacen(
        "group_base_dn",
        "# group_base_dn",
        1,
    );
    let domain = |text: &str| text.replace("ldaps://dc1.example.org", "ad://example.org");
    only(
        &folder.lines(&domain(SMALL)),
        &["directory.urls", "ad://example.org", "active_directory"],
    );
    let beside = active.replace("\"ldaps://dc1", "\"ad://example.org\", \"ldaps://dc1");
    only(&folder.lines(&beside), &["directory.urls", "beside others", "one domain alone"]);
    let servers = "[directory]\ndns_servers = [\"10.0.0.53\"]";
    let named = active.replacen("[directory]", servers, 1);
    only(&folder.lines(&named), &["directory.dns_servers", "ad://"]);
    // No name of it exists, and nobody asks: reading a configuration opens no network.
    let found = folder.load(&domain(&named), &[]).unwrap().config.directory.unwrap();
    let discovery = found.discovery.unwrap();
    assert!(found.servers.is_empty());
    assert_eq!(
        (discovery.domain.as_str(), discovery.transport),
        ("example.org", LdapTransport::Tls)
    );
    assert_eq!(discovery.dns_servers, ["10.0.0.53:53".parse().unwrap()]);
    for (more, transport) in [
        ("start_tls = true", LdapTransport::StartTls),
        ("allow_plaintext = true", LdapTransport::Tls),
    ] {
        let text = domain(&active).replacen("[directory]", &format!("[directory]\n{more}"), 1);
        let found = folder.load(&text, &[]).unwrap().config.directory.unwrap();
        assert_eq!(found.discovery.unwrap().transport, transport, "{more}");
    }
}

#[test]
fn several_servers_are_kept_in_order_each_once() {
    let folder = Folder::new();
    let urls = |urls: &str| SMALL.replace("\"ldaps://dc1.example.org\"", urls);
    let both = urls("\"ldaps://b.example.org\", \"ldaps://a.example.org:1636\"");
    let found = folder.load(&both, &[]).unwrap().config.directory.unwrap();
    let shown: Vec<_> = found.servers.iter().map(|it| (it.host.as_str(), it.port)).collect();
    assert_eq!(shown, [("b.example.org", 636), ("a.example.org", 1636)]);
    let twice = urls("\"ldaps://a.example.org\", \"ldaps://A.example.org:636\"");
    only(&folder.lines(&twice), &["directory.urls", "a.example.org:636 twice", "each server once"]);
}

#[test]
fn routes_that_contradict_or_shadow_are_refused() {
    let folder = Folder::new();
    let route = |path: &str, rest: &str| {
        let route = format!("[[route]]\npath = \"{path}\"\nupstream = \"backend\"\n{rest}\n");
        folder.lines(&format!("{SMALL}\n{route}"))
    };
    let public = "access = \"public\"";
    only(&route("/**", public), &["route.path in [[route]] no. 2", "no. 1"]);
    let same_host = format!("host = \"SafePlaces.example.org\"\n{public}");
    only(&route("/**", &same_host), &["route.path in [[route]] no. 2"]);
    for path in ["/auth/login", "/auth", "/Auth/Logout/", "/auth/mfa/x", "/.well-known/jwks.json"] {
        only(&route(path, public), &["route.path in [[route]] no. 2", "the gateway answers"]);
    }
    for path in ["/auth/users", "/auth/**", "/x/{id}"] {
        assert_eq!(route(path, public), Vec::<String>::new());
    }
    let elsewhere = format!("host = \"ingest.example.org\"\n{public}");
    assert!(route("/**", &elsewhere).is_empty(), "another host");
    assert!(route("/auth/login", &elsewhere).is_empty(), "no endpoints where all is public");
    only(&route("/x/**/y", public), &["route.path", "** last"]);
    only(&route("/x", ""), &["route.roles", "neither"]);
    let two = "[[upstream]]\nname = \"backend\"\nurls = [\"http://b\"]\n";
    only(&folder.lines(&format!("{SMALL}\n{two}")), &["upstream.name in [[upstream]] no. 2"]);
}

#[test]
fn a_login_alias_is_a_path_of_its_own() {
    let folder = Folder::new();
    let with_aliases = |aliases: &str| with("[server]", &format!("login_aliases = [{aliases}]"));
    let loaded = folder.load(&with_aliases("\"/login\", \"/api/login\""), &[]).unwrap();
    assert_eq!(loaded.config.server.login_aliases, ["/login", "/api/login"]);
    for aliases in ["\"/auth/login\"", "\"/Auth\"", "\"/auth/mfa/x\"", "\"/login\", \"/Login\""] {
        let lines = folder.lines(&with_aliases(aliases));
        only(&lines, &["server.login_aliases", "answers already", "/auth"]);
    }
    for aliases in ["\"login\"", "\"/login/\"", "\"/{x}\"", "\"/a%20b\"", "\"/**\"", "\"/\""] {
        only(&folder.lines(&with_aliases(aliases)), &["server.login_aliases", "literal segments"]);
    }
    for path in ["/login", "/Login/"] {
        let route = format!("[[route]]\npath = \"{path}\"\naccess = \"public\"\n");
        let text = format!("{}\n{route}upstream = \"backend\"\n", with_aliases("\"/login\""));
        only(&folder.lines(&text), &["route.path in [[route]] no. 2", "login_aliases"]);
    }
}

#[test]
fn a_public_route_has_no_rules_by_user() {
    let folder = Folder::new();
    let route = |access: &str| {
        let keys = "path = \"/codes\"\nupstream = \"backend\"\nthrottle = [\"30 per 1m per user\"]";
        folder.lines(&format!("{SMALL}\n[[route]]\n{keys}\naccess = \"{access}\"\n"))
    };
    only(&route("public"), &["route.throttle in [[route]] no. 2", "needs no user"]);
    assert!(route("authenticated").is_empty());
}

#[test]
fn one_path_may_have_a_route_for_each_method() {
    let folder = Folder::new();
    let rows = |one: &str, other: &str| {
        let route = |methods: &str| {
            format!(
                "[[route]]\npath = \"/x/{{id}}\"\nmethods = [{methods}]\nroles = [\"admin\"]\n\
                 upstream = \"backend\"\n"
            )
        };
        folder.lines(&format!("{SMALL}\n{}{}", route(one), route(other)))
    };
    assert!(rows("\"GET\"", "\"PUT\", \"POST\"").is_empty());
    only(&rows("\"GET\"", "\"PUT\", \"GET\""), &["no. 3", "no. 2"]);
    only(&rows("\"get\"", "\"PUT\""), &["route.methods in [[route]] no. 2", "capitals"]);
}

#[test]
fn what_is_risky_but_allowed_is_noted() {
    let folder = Folder::new();
    let notes = |text: &str| folder.load(text, &[]).unwrap().notes.join("\n");
    let small = notes(SMALL);
    assert!(small.contains("telemetry.audit_file: left out"), "{small}");
    assert_eq!(small.lines().count(), 1, "{small}");
    for (text, word) in [
        (format!("{SMALL}\n[telemetry]\nlisten = \"0.0.0.0:9464\""), "telemetry.listen"),
        (format!("{SMALL}\n[cookie]\nsame_site = \"none\""), "cookie.same_site"),
        (format!("{SMALL}\n[cookie]\nsame_site = \"lax\""), "cookie.same_site"),
        (format!("{SMALL}\n[cookie]\ntoken_name = \"access_token\""), "cookie.token_name"),
        (format!("{SMALL}\n[headers]\nhsts = \"off\""), "headers.hsts"),
        (format!("{SMALL}\n[headers]\nframe_options = \"off\""), "headers.frame_options"),
        (format!("{SMALL}\n[headers]\ncontent_type_options = \"off\""), "content_type_options"),
        (with("[server]", "cors_origins = [\"https://a.example\"]"), "need \"none\""),
        (with("[server]", "cors_origins = [\"http://a.example\"]"), "unencrypted"),
        (with("[token]", "delivery = \"both\""), "token.delivery"),
        (with("[server]", "trusted_proxies = [\"0.0.0.0/0\"]"), "server.trusted_proxies"),
        (with("[server]", "proxy_protocol = true"), "server.proxy_protocol"),
        (replaced("kind = \"embedded\"", "kind = \"memory\""), "store.kind"),
        (replaced("kind = \"embedded\"", "kind = \"memory\""), "token.keys_dir"),
        (format!("{SMALL}\n[[upstream]]\nname = \"b\"\nurls = [\"http://b\"]"), "no route leads"),
    ] {
        assert!(notes(&text).contains(word), "{word} in {}", notes(&text));
    }
}

#[test]
fn without_a_directory_only_public_routes_can_be_used() {
    let folder = Folder::new();
    let (start, end) = (SMALL.find("[directory]").unwrap(), SMALL.find("[token]").unwrap());
    let text = format!("{}{}", &SMALL[..start], &SMALL[end..]);
    let Loaded { config, notes } = folder.load(&text, &[]).unwrap();
    assert!(config.directory.is_none());
    assert!(notes.iter().any(|note| note.contains("nobody can log in")), "{notes:?}");
    let text = text.replace("access = \"authenticated\"", "roles = [\"admin\"]");
    only(&folder.lines(&text), &["route.roles", "of which there is none"]);
}

#[test]
fn a_reload_names_what_only_a_start_can_change() {
    let folder = Folder::new();
    let load = |text: &str| folder.load(text, &[]).unwrap().config;
    let old = load(SMALL);
    assert!(old.needs_restart(&load(&with("[token]", "lifetime = \"10m\""))).is_empty());
    let new = replaced("127.0.0.1:0", "127.0.0.1:1").replace("state.redb", "other.redb");
    assert_eq!(old.needs_restart(&load(&new)), ["server.listen", "store"]);
}

/// `SMALL` with access codes of these further keys.
fn coded(keys: &str) -> String {
    let codes = format!("[access_codes]\nenabled = true\nissuer_roles = [\"admin\"]\n{keys}\n");
    SMALL.replace("[token]\n", &format!("{codes}[token]\n"))
}

#[test]
fn the_budget_of_each_length_is_told_and_one_that_typing_errors_would_spend_is_refused() {
    let folder = Folder::new();
    let Loaded { config, notes } = folder.load(&coded(""), &[]).unwrap();
    assert_eq!(config.access_codes.unwrap().budgets[0].tries, 100);
    for words in [
        "6 digits: 100 wrong tries a day in all, 10 from one address",
        "8 digits: 5006 wrong tries a day in all, 500 from one address",
        "10 digits: 50000 wrong tries a day in all",
        "honest errors alone, about 60 on a full day, spend half of the budget of 6 digits",
        "access_codes: no route names the role \"access_code\"",
    ] {
        assert!(notes.iter().any(|note| note.contains(words)), "{words}: {notes:#?}");
    }
    for keys in
        ["typo_share = 0.09", "lifetime = \"30m\"", "success_probability = \"1 in 200 per day\""]
    {
        only(&folder.lines(&coded(keys)), &["access_codes.success_probability", "honest errors"]);
    }
    folder.load(&coded("digits = 8\nlifetime = \"10m\""), &[]).unwrap();
}

#[test]
fn access_codes_that_cannot_work_are_refused() {
    let folder = Folder::new();
    for (keys, words) in [
        ("session_lifetime = \"2h\"", &["access_codes.session_lifetime", "token.idle_timeout"][..]),
        ("digits = 3", &["access_codes.digits", "from 4 to 10"]),
        ("success_probability = \"often\"", &["access_codes.success_probability", "1 in 100"]),
        ("typo_share = 2", &["access_codes.typo_share", "from 0 to 1"]),
    ] {
        only(&folder.lines(&coded(keys)), words);
    }
    let text = coded("").replace("[\"admin\"]", "[\"boss\"]");
    only(&folder.lines(&text), &["access_codes.issuer_roles", "\"boss\"", "admin"]);
    let text = coded("").replace("[\"admin\"]", "[]");
    only(&folder.lines(&text), &["access_codes.issuer_roles", "nobody"]);
    let route =
        |text: &str| text.replace("access = \"authenticated\"", "roles = [\"access_code\"]");
    only(&folder.lines(&route(SMALL)), &["route.roles", "access_codes.enabled = true"]);
    folder.load(&route(&coded("")), &[]).unwrap();
    let header = "[headers]\nreference = \"x_auth_user\"\n[token]\n";
    let text = SMALL.replace("[token]\n", header);
    only(&folder.lines(&text), &["headers.reference", "a name of its own"]);
}

#[test]
fn a_guard_says_what_a_wrong_guess_is_and_guards_of_one_name_agree() {
    let folder = Folder::new();
    let guard = |keys: &str| with("[[route]]", &format!("guess_guard = {{ {keys} }}"));
    let numbers = "digits = 6, alive_max = 50, success_probability = \"1 in 100 per day\"";
    for (keys, words) in [
        (numbers.to_owned(), &["guess_guard.failure_status", "failure_json"][..]),
        (format!("failure_status = [403], failure_json = \"valid\", {numbers}"), &["failure_json"]),
        (format!("failure_status = [42], {numbers}"), &["guess_guard.failure_status", "200"]),
        ("failure_status = [403], digits = 6, alive_max = 50".to_owned(), &["success_probability"]),
        (format!("failure_status = [403], {}", numbers.replace("50", "500000")), &["no wrong try"]),
    ] {
        only(&folder.lines(&guard(&keys)), words);
    }
    let one = guard(&format!("name = \"codes\", failure_status = [403], {numbers}"));
    let loaded = folder.load(&one, &[]).unwrap();
    let told = "guess_guard \"codes\", 6 digits: 200 wrong tries a day in all, 20 from one address";
    assert!(loaded.notes.iter().any(|note| note.contains(told)), "{:#?}", loaded.notes);
    let other = numbers.replace("50", "60");
    let two = format!(
        "{one}\n[[route]]\npath = \"/b\"\naccess = \"public\"\nupstream = \"backend\"\n\
         guess_guard = {{ name = \"codes\", failure_status = [403], {other} }}\n"
    );
    only(&folder.lines(&two), &["route.guess_guard in [[route]] no. 2", "the same digits"]);
}
