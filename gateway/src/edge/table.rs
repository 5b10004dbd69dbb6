//! What is served: apps by host, their certificates, routes and endpoints. A table never changes; a reload builds the next
//! one, which takes over certificates and endpoints (with their idle connections) that stay.

use std::collections::HashMap;
use std::sync::Arc;

use config::names::DnsName;

use super::config::{App, Endpoint};
use super::identity::Identity;
use super::routes::Routes;
use super::upstream::Upstream;

/// What is served. Its maps are as large as the configuration.
#[derive(Default)]
pub(super) struct Table {
    apps: Vec<Arc<Served>>,
    hosts: HashMap<DnsName, Arc<Served>>,
    upstreams: HashMap<Endpoint, Arc<Upstream>>,
}

/// One app.
pub(super) struct Served {
    /// `namespace/name`
    pub(super) label: Arc<str>,
    pub(super) app: App,
    pub(super) ends: Ends,
    pub(super) routes: Routes,
}

/// Where its TLS ends.
pub(super) enum Ends {
    /// Here, with this certificate.
    Here(Arc<Identity>),
    /// In its backend.
    Backend,
}

impl Table {
    /// The next table after `before`.
    pub(super) fn new(apps: impl IntoIterator<Item = (App, Ends)>, before: &Self) -> Self {
        let mut table = Self::default();
        for (app, ends) in apps {
            let routes = app.routes.iter().map(|route| {
                let upstreams = route.backends.iter().map(|endpoint| table.upstream(endpoint, before)).collect();
                (route.path.clone(), upstreams)
            });
            let routes = Routes::new(routes.collect::<Vec<_>>());
            let served = Arc::new(Served { label: app.label().into(), app, ends, routes });
            table.hosts.extend(served.app.hosts.iter().map(|host| (host.clone(), served.clone())));
            table.apps.push(served);
        }
        table
    }

    /// The app with that host.
    pub(super) fn app(&self, host: &DnsName) -> Option<&Arc<Served>> {
        self.hosts.get(host)
    }

    /// All apps, in the order of the configuration.
    pub(super) fn apps(&self) -> &[Arc<Served>] {
        &self.apps
    }

    /// All endpoints.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// Whether the app with that host is still `label`, and still has that endpoint.
    pub(super) fn serves(&self, host: &DnsName, label: &str, endpoint: &Endpoint) -> bool {
        let mut upstreams =
            self.app(host).filter(|served| *served.label == *label).into_iter().flat_map(|s| s.routes.upstreams());
        upstreams.any(|upstream| upstream.endpoint == *endpoint)
    }

    fn upstream(&mut self, endpoint: &Endpoint, before: &Self) -> Arc<Upstream> {
        let known = self.upstreams.get(endpoint).or_else(|| before.upstreams.get(endpoint));
        let upstream = known.cloned().unwrap_or_else(|| Arc::new(Upstream::new(endpoint.clone())));
        self.upstreams.insert(endpoint.clone(), upstream.clone());
        upstream
    }
}
