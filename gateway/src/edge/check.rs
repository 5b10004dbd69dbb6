//! From a configuration to a table that can be installed: every certificate is loaded before anything is committed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::certificate::{self, Wanted};
use super::config::{App, EdgeConfig, Mode};
use super::identity::Identity;
use super::shared::{Shared, unix_now};
use super::table::{Ends, Table};

/// A configuration whose files have been loaded; [`Edge::install`](super::Edge::install) serves it.
pub struct Prepared {
    pub(super) table: Table,
    warnings: Vec<EdgeProblem>,
}

/// What is wrong with an app, and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeProblem {
    /// `namespace/name`
    pub app: String,
    /// What is wrong; what to do.
    pub what: String,
}

impl Prepared {
    /// What the operator should know though it can be served.
    pub fn warnings(&self) -> &[EdgeProblem] {
        &self.warnings
    }
}

impl fmt::Display for EdgeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exposedapp/{}: {}", self.app, self.what)
    }
}

/// A table of that configuration, and the problems for which it should not be taken into use.
///
/// An app whose files are bad keeps the certificate that is served now, if it names the same files; this is a warning.
/// An app without one is closed in the table, until the watch finds its files mended; this is a problem.
pub(super) fn prepare(shared: &Shared, config: &EdgeConfig) -> (Prepared, Vec<EdgeProblem>) {
    let before = shared.table();
    let mut problems = host_problems(config);
    let mut warnings = Vec::new();
    let mut apps = Vec::with_capacity(config.apps.len());
    for app in &config.apps {
        let problem = |what: String| EdgeProblem { app: app.label(), what };
        let Some(wanted) = wanted(app) else {
            apps.push((app.clone(), Ends::Backend));
            continue;
        };
        let current =
            before.apps().iter().find(|served| served.app.namespace == app.namespace && served.app.name == app.name);
        let current = current.and_then(|served| match &served.ends {
            Ends::Here(identity) => Some(identity),
            Ends::Backend => None,
        });
        let same = current.filter(|identity| identity.wanted == wanted);
        let identity = match same.filter(|identity| !identity.stale(&shared.files)) {
            Some(fresh) => fresh.clone(),
            None => match certificate::load(&shared.files, &wanted, &shared.provider, unix_now()) {
                Ok((loaded, stamps)) => {
                    Arc::new(Identity::new(wanted, loaded, stamps, current.map(|identity| &**identity)))
                }
                Err(error) => match same.filter(|identity| identity.loaded().is_some()) {
                    Some(kept) => {
                        warnings.push(problem(format!("{error} (the certificate loaded earlier stays in use)")));
                        kept.clone()
                    }
                    None => {
                        problems.push(problem(error.to_string()));
                        Arc::new(Identity::closed(wanted, &error))
                    }
                },
            },
        };
        warnings.extend(identity.loaded().iter().flat_map(|loaded| loaded.warnings.clone()).map(problem));
        apps.push((app.clone(), Ends::Here(identity)));
    }
    (Prepared { table: Table::new(apps, &before), warnings }, problems)
}

fn wanted(app: &App) -> Option<Wanted> {
    match &app.mode {
        Mode::Edge { cert_file, key_file, min_version, client_ca } => Some(Wanted {
            namespace: app.namespace.clone(),
            hosts: app.hosts.clone(),
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            min_version: *min_version,
            client_ca: client_ca.clone(),
        }),
        Mode::Passthrough => None,
    }
}

fn host_problems(config: &EdgeConfig) -> Vec<EdgeProblem> {
    let mut owners = BTreeMap::new();
    let mut problems = Vec::new();
    for app in &config.apps {
        for host in &app.hosts {
            if let Some(owner) = owners.insert(host, app.label()) {
                let what = format!("the host {host} is exposed by {owner} too; give it to one of them");
                problems.push(EdgeProblem { app: app.label(), what });
            }
        }
    }
    problems
}
