//! Which route a path takes, and which of its endpoints are tried, in which order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::upstream::Upstream;

/// Endpoints that one request may try.
const MAX_TRIES: usize = 3;

/// An app's routes, longest prefix first.
pub(super) struct Routes(Vec<(String, Backends)>);

/// A route's endpoints.
pub(super) struct Backends {
    upstreams: Vec<Arc<Upstream>>,
    turn: AtomicUsize,
}

/// Why a path has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// None of the prefixes covers it.
    Unknown,
    /// It has `.` or `..` segments, which the backend may resolve into another route's path.
    Ambiguous,
}

impl Routes {
    /// From prefixes and their endpoints.
    pub(super) fn new(routes: impl IntoIterator<Item = (String, Vec<Arc<Upstream>>)>) -> Self {
        let backends = |upstreams| Backends { upstreams, turn: AtomicUsize::new(0) };
        let mut routes: Vec<_> = routes.into_iter().map(|(path, upstreams)| (path, backends(upstreams))).collect();
        routes.sort_by_key(|(path, _)| std::cmp::Reverse(path.trim_end_matches('/').len()));
        Self(routes)
    }

    /// The endpoints for a path: the longest prefix of whole segments. `*` (RFC 9110 §9.3.7) takes the route of `/`.
    pub(super) fn find(&self, path: &str) -> Result<&Backends, NoRoute> {
        if self.0.len() > 1 && path.split('/').any(is_dots) {
            return Err(NoRoute::Ambiguous);
        }
        let path = if path == "*" { "/" } else { path };
        self.0.iter().find(|(prefix, _)| covers(prefix, path)).map(|(_, backends)| backends).ok_or(NoRoute::Unknown)
    }

    /// All endpoints, each as often as routes name it.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.iter().flat_map(|(_, backends)| &backends.upstreams)
    }
}

impl Backends {
    /// Endpoints to try, in order: from the one whose turn it is, those that are set aside last.
    pub(super) fn candidates(&self) -> Vec<Arc<Upstream>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let (count, now) = (self.upstreams.len(), Instant::now());
        let turned = || (0..count).map(|at| &self.upstreams[(first.wrapping_add(at)) % count]);
        let (up, aside): (Vec<_>, Vec<_>) = turned().partition(|upstream| upstream.available(now));
        up.into_iter().chain(aside).take(MAX_TRIES).cloned().collect()
    }
}

fn covers(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `.` and `..`, percent-encoded too, and with a parameter as some servers strip it.
fn is_dots(segment: &str) -> bool {
    let segment = segment.split(';').next().unwrap_or_default();
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".."
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::super::config::Endpoint;
    use super::*;

    fn upstream(port: u16) -> Arc<Upstream> {
        let source = IpAddr::from([127, 0, 0, 1]);
        Arc::new(Upstream::new(Endpoint { workload: port.to_string(), source, address: SocketAddr::new(source, port) }))
    }

    fn port(routes: &Routes, path: &str) -> Result<u16, NoRoute> {
        routes.find(path).map(|backends| backends.candidates()[0].endpoint.address.port())
    }

    #[test]
    fn the_longest_prefix_of_whole_segments() {
        let paths = ["/", "/api", "/api/v2/"];
        let routes = Routes::new(paths.iter().zip(1..).map(|(path, port)| (path.to_string(), vec![upstream(port)])));
        for (path, expected) in
            [("/", 1), ("/x", 1), ("/apis", 1), ("/api", 2), ("/api/", 2), ("/api/v2", 3), ("/api/v2/x", 3), ("*", 1)]
        {
            assert_eq!(port(&routes, path), Ok(expected), "{path}");
        }
        for path in ["/api/../x", "/api/%2E%2e/x", "/./x", "/api/..;a=b/x", "/x/.."] {
            assert_eq!(port(&routes, path), Err(NoRoute::Ambiguous), "{path}");
        }
        assert_eq!(port(&routes, "/a..b/.well-known"), Ok(1));
    }

    #[test]
    fn without_a_route_for_everything() {
        let routes = Routes::new([("/api".to_owned(), vec![upstream(1)])]);
        assert_eq!(port(&routes, "/"), Err(NoRoute::Unknown));
        assert_eq!(port(&routes, "/api/.."), Ok(1), "one route only: nothing to confuse");
    }

    #[test]
    fn endpoints_take_turns() {
        let routes = Routes::new([("/".to_owned(), (1..=5).map(upstream).collect())]);
        let mut turns: Vec<_> = (0..10).map(|_| port(&routes, "/").unwrap()).collect();
        turns.sort_unstable();
        assert_eq!(turns, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        assert_eq!(routes.find("/").unwrap().candidates().len(), MAX_TRIES);
    }
}
