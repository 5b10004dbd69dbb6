//! Which host a request is for (RFC 9112 §3.2, RFC 9113 §8.3.1), one answer for both versions of HTTP.

use config::names::DnsName;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

use super::reason::Reason;

/// A request's host.
#[derive(Debug)]
pub(super) struct Target {
    /// Its name, without the port.
    pub(super) host: DnsName,
    /// As the client wrote it, with its port.
    pub(super) authority: HeaderValue,
}

/// Reads it: the authority of the request's target, else its `Host`. Two that differ are refused.
pub(super) fn read<B>(request: &Request<B>) -> Result<Target, Reason> {
    let mut fields = request.headers().get_all(HOST).into_iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Reason::BadRequest("more than one Host"));
    }
    let from_uri = request.uri().authority();
    if request.version() != Version::HTTP_2 && field.is_none() {
        return Err(Reason::BadRequest("no Host"));
    }
    let text = match (from_uri, field) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(field)) => field.as_bytes(),
        (None, None) => return Err(Reason::BadRequest("no Host")),
    };
    let (host, authority) = parse(text)?;
    // HTTP/1 lets the target win (RFC 9112 §3.2.2), HTTP/2 wants them equal; nobody honest sends two hosts.
    if let Some(field) = field
        && parse(field.as_bytes())?.0 != host
    {
        return Err(Reason::BadRequest("Host and the request's target differ"));
    }
    Ok(Target { host, authority })
}

fn parse(text: &[u8]) -> Result<(DnsName, HeaderValue), Reason> {
    let wrong = Reason::BadRequest("the host cannot be read");
    let authority = Authority::try_from(text).map_err(|_| wrong)?;
    if authority.as_str().contains('@') {
        return Err(wrong);
    }
    // A host that is no DNS name (an address, say) is a host that no app has.
    let host = DnsName::try_from(authority.host().to_owned()).map_err(|_| Reason::Misdirected)?;
    HeaderValue::from_bytes(text).map(|field| (host, field)).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(version: Version, uri: &str, hosts: &[&str]) -> Result<(String, String), Reason> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let target = read(&request.body(()).unwrap())?;
        Ok((target.host.to_string(), target.authority.to_str().unwrap().to_owned()))
    }

    #[test]
    fn one_host_whatever_the_version() {
        let good = |host: &str, field: &str| Ok((host.to_owned(), field.to_owned()));
        assert_eq!(host(Version::HTTP_11, "/", &["Shop.Example:8443"]), good("shop.example", "Shop.Example:8443"));
        assert_eq!(host(Version::HTTP_11, "/", &["shop.example."]), good("shop.example", "shop.example."));
        assert_eq!(host(Version::HTTP_2, "https://shop.example/", &[]), good("shop.example", "shop.example"));
        assert_eq!(host(Version::HTTP_2, "/", &["shop.example"]), good("shop.example", "shop.example"));
        assert_eq!(
            host(Version::HTTP_11, "http://shop.example/", &["shop.example"]),
            good("shop.example", "shop.example")
        );
    }

    #[test]
    fn none_two_or_strange_ones_are_refused() {
        for (version, uri, hosts) in [
            (Version::HTTP_11, "/", &[][..]),
            (Version::HTTP_10, "/", &[]),
            (Version::HTTP_2, "/", &[]),
            (Version::HTTP_11, "https://shop.example/", &[]),
            (Version::HTTP_11, "/", &["shop.example", "shop.example"]),
            (Version::HTTP_2, "https://shop.example/", &["other.example"]),
            (Version::HTTP_11, "/", &["user@shop.example"]),
            (Version::HTTP_11, "/", &["shop.example/x"]),
            (Version::HTTP_11, "/", &[""]),
        ] {
            assert!(matches!(host(version, uri, hosts), Err(Reason::BadRequest(_))), "{uri} {hosts:?}");
        }
        assert_eq!(host(Version::HTTP_11, "/", &["192.0.2.1"]), Err(Reason::Misdirected));
    }
}
