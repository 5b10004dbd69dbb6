//! Header fields that end at a proxy (RFC 9110 §7.6.1), and those that a proxy says (RFC 7239 and its forerunners).
//!
//! What a client says about forwarding is never believed: backends would take its word for who it is.

use std::net::IpAddr;

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};

/// Fields that are about one connection only, whether or not `Connection` names them. `http2-settings` would offer the
/// backend an upgrade that the edge could not read; `proxy` becomes `HTTP_PROXY` in CGI programs.
const SINGLE_HOP: [&str; 5] = ["keep-alive", "proxy-connection", "http2-settings", "proxy", "te"];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Makes a client's fields those that its backend gets. `host` is the authority as the client wrote it.
/// `chunked` is for a body of unknown length. `websocket` passes the upgrade on.
pub(super) fn towards_backend(
    headers: &mut HeaderMap,
    client: IpAddr,
    host: &HeaderValue,
    chunked: bool,
    websocket: bool,
) {
    let trailers = lists(headers, &TE, "trailers");
    remove_single_hop(headers);
    headers.remove(EXPECT);
    headers.remove(TRANSFER_ENCODING);
    let claimed: Vec<_> = headers.keys().filter(|name| claims_forwarding(name)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    join_cookies(headers);

    headers.insert(HOST, host.clone());
    for (name, value) in
        [(FORWARDED_FOR, client.to_string()), (FORWARDED, forwarded(client, &String::from_utf8_lossy(host.as_bytes())))]
    {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(FORWARDED_HOST, host.clone());
    if chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.remove(CONTENT_LENGTH);
    }
    if websocket {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Makes a backend's fields those that its client gets.
pub(super) fn towards_client(headers: &mut HeaderMap, switches_protocol: bool) {
    remove_single_hop(headers);
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    if switches_protocol {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Whether a field is a list that has `token`, in any case.
pub(super) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn remove_single_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect();
    // A client must not use `Connection` to take away what delimits its message.
    for name in named.iter().filter(|name| **name != CONTENT_LENGTH && **name != TRANSFER_ENCODING) {
        headers.remove(name);
    }
    for name in SINGLE_HOP {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
}

/// `_` is taken for `-` by many application servers.
fn claims_forwarding(name: &HeaderName) -> bool {
    let plain = name.as_str().replace('_', "-");
    plain == "forwarded" || plain == "x-real-ip" || plain.starts_with("x-forwarded-")
}

/// HTTP/2 may split cookies (RFC 9113 §8.2.3); HTTP/1 may not.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookie);
    }
}

fn forwarded(client: IpAddr, host: &str) -> String {
    match client {
        IpAddr::V4(client) => format!("for={client};host=\"{host}\";proto=https"),
        IpAddr::V6(client) => format!("for=\"[{client}]\";host=\"{host}\";proto=https"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(field).collect()
    }

    fn towards(lines: &[(&'static str, &'static str)], client: &str, websocket: bool) -> HeaderMap {
        let mut headers = fields(lines);
        let host = HeaderValue::from_static("shop.example.com:8443");
        towards_backend(&mut headers, client.parse().unwrap(), &host, false, websocket);
        headers
    }

    #[test]
    fn what_a_client_claims_is_replaced() {
        let claims = [
            ("host", "evil.example"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x-forwarded-client-cert", "CN=admin"),
            ("x-real-ip", "10.0.0.1"),
            ("accept", "*/*"),
        ];
        let headers = towards(&claims, "192.0.2.7", false);
        let expected = [
            ("accept", "*/*"),
            ("forwarded", "for=192.0.2.7;host=\"shop.example.com:8443\";proto=https"),
            ("host", "shop.example.com:8443"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "shop.example.com:8443"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(headers, fields(&expected));
        let headers = towards(&[], "2001:db8::7", false);
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::7]\";host=\"shop.example.com:8443\";proto=https");
    }

    #[test]
    fn single_hop_fields_end_here() {
        let lines = [
            ("connection", "keep-alive, X-Mine"),
            ("connection", "upgrade, content-length"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("content-length", "3"),
            ("te", "gzip, trailers"),
            ("expect", "100-continue"),
        ];
        let headers = towards(&lines, "192.0.2.7", false);
        for gone in ["upgrade", "http2-settings", "keep-alive", "x-mine", "expect"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(
            (&headers["content-length"], &headers["te"], &headers["connection"]),
            (&HeaderValue::from_static("3"), &HeaderValue::from_static("trailers"), &HeaderValue::from_static("te"))
        );
    }

    #[test]
    fn a_websocket_is_passed_on() {
        let lines = [("connection", "Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-key", "x")];
        let headers = towards(&lines, "192.0.2.7", true);
        assert_eq!(headers["upgrade"], "websocket");
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["sec-websocket-key"], "x");
    }

    #[test]
    fn cookies_become_one() {
        let headers = towards(&[("cookie", "a=1"), ("cookie", "b=2")], "192.0.2.7", false);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn an_answer_is_framed_anew() {
        let mut headers = fields(&[
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("connection", "close, x-inner"),
            ("x-inner", "1"),
            ("trailer", "x-sum"),
        ]);
        towards_client(&mut headers, false);
        assert_eq!(headers, fields(&[("trailer", "x-sum")]));
        let mut headers = fields(&[("content-length", "3")]);
        towards_client(&mut headers, false);
        assert_eq!(headers, fields(&[("content-length", "3")]));
    }
}
