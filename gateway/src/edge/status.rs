//! What `status` tells of the edge.

use serde::Serialize;
use tokio::time::Instant;

use super::shared::{Shared, unix_now};
use super::table::{Ends, Served};

/// The edge now.
#[derive(Clone, Debug, Serialize)]
pub struct EdgeStatus {
    /// Client connections.
    pub connections: usize,
    /// Apps, in the order of the configuration.
    pub apps: Vec<AppStatus>,
}

/// One app.
#[derive(Clone, Debug, Serialize)]
pub struct AppStatus {
    /// `namespace/name`
    pub app: String,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// The certificate that is served; `None` under passthrough, or if it could never be loaded.
    pub certificate: Option<CertificateStatus>,
    /// Why the certificate files as they lie there are not in use, and what is odd about those in use.
    pub problems: Vec<String>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// A certificate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CertificateStatus {
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// Whole days until then; negative once it has expired.
    pub days_left: i64,
}

/// An endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointStatus {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Where it is reached.
    pub address: String,
    /// Whether it is passed over for a while, after failed connects.
    pub set_aside: bool,
    /// Connections kept for the next request.
    pub idle: usize,
    /// Connections with a request on them.
    pub in_use: usize,
}

pub(super) fn of(shared: &Shared) -> EdgeStatus {
    let apps = shared.table().apps().iter().map(|served| app(served)).collect();
    EdgeStatus { connections: *shared.connections.borrow(), apps }
}

fn app(served: &Served) -> AppStatus {
    let now = Instant::now();
    let (certificate, problems) = match &served.ends {
        Ends::Here(identity) => {
            let loaded = identity.loaded();
            let certificate = loaded.as_ref().map(|loaded| CertificateStatus {
                not_after: loaded.not_after,
                days_left: (loaded.not_after - unix_now()).div_euclid(86_400),
            });
            let warnings = loaded.into_iter().flat_map(|loaded| loaded.warnings.clone());
            (certificate, identity.error().into_iter().chain(warnings).collect())
        }
        Ends::Backend => (None, Vec::new()),
    };
    let endpoints = served.routes.upstreams().map(|upstream| {
        let (idle, in_use) = upstream.connections();
        EndpointStatus {
            workload: upstream.endpoint.workload.clone(),
            address: upstream.endpoint.address.to_string(),
            set_aside: !upstream.available(now),
            idle,
            in_use,
        }
    });
    AppStatus {
        app: served.label.to_string(),
        hosts: served.app.hosts.iter().map(ToString::to_string).collect(),
        certificate,
        problems,
        endpoints: endpoints.collect(),
    }
}
