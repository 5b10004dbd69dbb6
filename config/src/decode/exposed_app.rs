//! `kind: ExposedApp`

use std::collections::BTreeSet;

use super::later::Later;
use super::{files, selector};
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::{DnsName, Name, NameError};
use crate::resource::{Backend, Certificate, ExposedApp, Route, Tls, TlsVersion};
use crate::wording::{quoted, wrong};

pub(super) fn read(namespace: Option<Name>, name: Option<Name>, spec: &Field<'_>) -> Option<ExposedApp> {
    let fields = spec.fields(&["hosts", "tls", "routes"], &[])?;
    let hosts =
        fields.required("hosts", "list the host names that the edge serves").and_then(|field| read_hosts(&field));
    let tls = fields.required("tls", "write `tls: { mode: Edge, … }` or `tls: { mode: Passthrough }`");
    let tls = tls.and_then(|field| read_tls(&field));
    let routes = fields.required("routes", "write `routes: [ { path: /, backends: [ … ] } ]`");
    let routes = routes.and_then(|field| read_routes(&field, tls == Some(Tls::Passthrough)));
    Some(ExposedApp { namespace: namespace?, name: name?, hosts: hosts?, tls: tls?, routes: routes? })
}

fn read_hosts(field: &Field<'_>) -> Option<Vec<DnsName>> {
    let mut seen = BTreeSet::new();
    let items = field.some_items("host")?;
    let hosts = Field::all(&items, |item| {
        let text = item.text()?;
        if text.starts_with("*.") {
            item.later(Later::WildcardHost);
            return None;
        }
        let host: DnsName = item.parse()?;
        Some((item.clone(), host))
    })?;
    for (item, host) in &hosts {
        if !seen.insert(host) {
            item.problem(format!("`{host}` is in the list twice"), "keep one of them");
        }
    }
    Some(hosts.into_iter().map(|(_, host)| host).collect())
}

fn read_tls(field: &Field<'_>) -> Option<Tls> {
    #[derive(Clone, Copy)]
    enum Mode {
        Edge,
        Passthrough,
    }
    let known = ["mode", "certificate", "minVersion", "clientAuth"];
    let fields = field.fields(&known, &[("acme", Later::Acme)])?;
    let mode = fields.required("mode", "write `mode: Edge` or `mode: Passthrough`")?;
    let reencrypt = ("Reencrypt", Err(Later::Reencrypt));
    match mode.choice_or_later(&[("Edge", Ok(Mode::Edge)), ("Passthrough", Ok(Mode::Passthrough)), reencrypt])? {
        Mode::Edge => read_edge(&fields),
        Mode::Passthrough => {
            for key in known.into_iter().skip(1) {
                if let Some(field) = fields.optional(key) {
                    field
                        .problem(format!("`{key}` under `mode: Passthrough`: TLS ends at the backend"), "leave it out");
                }
            }
            Some(Tls::Passthrough)
        }
    }
}

fn read_edge(fields: &Fields<'_>) -> Option<Tls> {
    let certificate = if fields.has("certificate") || !fields.has("acme") {
        let mend = "write `certificate: { certFile: tls.crt, keyFile: tls.key }`";
        fields.required("certificate", mend).and_then(|field| read_certificate(&field))
    } else {
        None
    };
    let min_version = match fields.optional("minVersion") {
        Some(field) => field.choice(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]),
        None => Some(TlsVersion::Tls12),
    };
    let client_ca = fields.optional("clientAuth").and_then(|field| {
        let ca = field.fields(&["caFile"], &[])?.required("caFile", "name the file with the clients' CA")?;
        files::name(&ca, "tls.crt")
    });
    Some(Tls::Edge { certificate: certificate?, min_version: min_version?, client_ca })
}

fn read_certificate(field: &Field<'_>) -> Option<Certificate> {
    let fields = field.fields(&["certFile", "keyFile"], &[("acme", Later::Acme)])?;
    if fields.has("acme") {
        return None;
    }
    let file = |key: &str, what: &str| fields.required(key, what).and_then(|field| files::name(&field, "tls.crt"));
    let cert_file = file("certFile", "name the PEM file with the chain, leaf first");
    let key_file = file("keyFile", "name the PEM file with the private key");
    Some(Certificate { cert_file: cert_file?, key_file: key_file? })
}

fn read_routes(field: &Field<'_>, passthrough: bool) -> Option<Vec<Route>> {
    let items = field.some_items("route")?;
    if passthrough && items.len() > 1 {
        field.problem("`mode: Passthrough` cannot read paths", "keep one route, with `path: /`");
    }
    let routes = Field::all(&items, |item| read_route(item, passthrough))?;
    let mut seen = BTreeSet::new();
    for (item, route) in items.iter().zip(&routes) {
        if !seen.insert(&route.path) {
            item.problem(
                format!("the path {} is in the list twice", quoted(&route.path)),
                "put its backends into one route",
            );
        }
    }
    Some(routes)
}

fn read_route(item: &Field<'_>, passthrough: bool) -> Option<Route> {
    let fields = item.fields(&["path", "backends"], &[])?;
    let path = fields.required("path", "write `path: /` for every path").and_then(|field| {
        let path = field.read(path_prefix)?;
        if passthrough && path != "/" {
            field.problem("`mode: Passthrough` cannot read paths", "write `path: /`");
        }
        Some(path)
    });
    let backends = fields.required("backends", "list at least one, as `- { selector: { … }, port: 8080 }`");
    let backends = backends.and_then(|field| Field::all(&field.some_items("backend")?, read_backend));
    Some(Route { path: path?, backends: backends? })
}

/// A path of whole segments (RFC 3986, section 3.3), without a slash at its end.
fn path_prefix(text: &str) -> Result<String, NameError> {
    let form = |why: &str, mend: &str| Err(wrong(format!("{} is not a path: {why}", quoted(text)), mend));
    let Some(inside) = text.strip_prefix('/') else {
        return form("it does not begin with /", "write it as `/api`");
    };
    let inside = inside.strip_suffix('/').unwrap_or(inside);
    if inside.is_empty() {
        return Ok("/".to_owned());
    }
    for segment in inside.split('/') {
        if matches!(segment, "" | "." | "..") {
            return form("it has an empty or dotted segment", "write it as clients send it, as `/api/v1`");
        }
        let escapes = segment.split('%').skip(1);
        let escaped = |text: &str| text.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&b);
        if !segment.bytes().all(plain) || !escapes.into_iter().all(escaped) {
            return form("it has characters that stand in no path", "escape them as clients do, as `%20` for a blank");
        }
    }
    Ok(format!("/{inside}"))
}

fn read_backend(item: &Field<'_>) -> Option<Backend> {
    let fields = item.fields(&["selector", "port"], &[])?;
    let selector = fields.required("selector", selector::MISSING).and_then(|field| selector::read(&field));
    let port = fields.required("port", "write the TCP port that the workload listens on");
    let port = port.and_then(|field| field.integer("a port", 1..=65535));
    Some(Backend { selector: selector?, port: port? })
}
