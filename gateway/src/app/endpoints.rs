//! Exposed apps as the edge and the kernel see them: endpoints, and ports that only the edge may open.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use config::resource::{self, ExposedApp, Tls, selects};

use super::desired::Desired;
use crate::edge::{App, EdgeConfig, Endpoint, Mode, Route};
use crate::workload::{Workload, WorkloadId};

/// The edge's configuration for this state.
pub(crate) fn edge_config(desired: &Desired) -> EdgeConfig {
    EdgeConfig { apps: desired.resources.apps().map(|app| served(desired, app)).collect() }
}

/// Every TCP port of a workload that an app exposes.
pub(crate) fn exposed_ports(desired: &Desired) -> BTreeSet<(WorkloadId, u16)> {
    let backends = desired.resources.apps().flat_map(|app| backends(app).map(move |backend| (app, backend)));
    backends.flat_map(|(app, backend)| members(desired, app, backend).map(|w| (w.id, backend.port))).collect()
}

/// Those of one workload.
pub(crate) fn exposed_ports_of(desired: &Desired, workload: &Workload) -> BTreeSet<u16> {
    let own = desired.resources.apps().filter(|app| app.namespace == workload.namespace);
    let backends = own.flat_map(backends).filter(|backend| selects(&backend.selector, &workload.labels));
    backends.map(|backend| backend.port).collect()
}

/// Whether an app is served by this workload: only then does the edge have to do with it.
pub(crate) fn is_backend(desired: &Desired, workload: &Workload) -> bool {
    !exposed_ports_of(desired, workload).is_empty()
}

fn served(desired: &Desired, app: &ExposedApp) -> App {
    let mode = match &app.tls {
        Tls::Edge { certificate, min_version, client_ca } => Mode::Edge {
            cert_file: certificate.cert_file.clone(),
            key_file: certificate.key_file.clone(),
            min_version: *min_version,
            client_ca: client_ca.clone(),
        },
        Tls::Passthrough => Mode::Passthrough,
    };
    let routes = app.routes.iter().map(|route| Route {
        path: route.path.clone(),
        backends: route.backends.iter().flat_map(|backend| endpoints(desired, app, backend)).collect(),
    });
    App {
        namespace: app.namespace.clone(),
        name: app.name.clone(),
        hosts: app.hosts.clone(),
        mode,
        routes: routes.collect(),
    }
}

fn endpoints(desired: &Desired, app: &ExposedApp, backend: &resource::Backend) -> Vec<Endpoint> {
    let endpoint = |workload: &Workload| {
        let (source, handle) = desired.way_to(workload)?;
        Some(Endpoint {
            workload: format!("{}/{}", workload.namespace, workload.name),
            source,
            address: SocketAddr::new(handle, backend.port),
        })
    };
    members(desired, app, backend).filter_map(endpoint).collect()
}

fn backends(app: &ExposedApp) -> impl Iterator<Item = &resource::Backend> {
    app.routes.iter().flat_map(|route| &route.backends)
}

fn members<'a>(
    desired: &'a Desired,
    app: &'a ExposedApp,
    backend: &'a resource::Backend,
) -> impl Iterator<Item = &'a Workload> {
    let all = desired.workloads.values().map(|workload| &**workload);
    let own = all.filter(|workload| workload.namespace == app.namespace);
    own.filter(|workload| selects(&backend.selector, &workload.labels))
}
