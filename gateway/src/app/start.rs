//! The daemon's start and end; the steps are told in [`super`].

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Prefixes;
use config::api::{ConditionState, WorkloadName};
use config::resource::{AddressSet, Resource, SetSource};
use config::upstream::Upstream;
use policy::ledger::{self, Ledger};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::control::Admin;
use super::desired::{Desired, set_key};
use super::enforcement::{Enforcement, InstallError};
use super::gate::{Gate, Parts};
use super::names::Names;
use super::numbers::Numbers;
use super::seal::Sealer;
use super::sets::Loaded;
use super::verify::Verifying;
use super::{cni, endpoints, reload, watching};
use crate::admin::{AdminError, AdminSocket};
use crate::edge::{Dial, Edge, EdgeError, FilesDir};
use crate::egress::dns::{self, DnsError, Resolution};
use crate::egress::tables::names::{LearnedAddress, LearnedSlot};
use crate::egress::tables::{OpenError, TableError, Tables};
use crate::features::{self, Check};
use crate::segmentation::{self, Segmentation, names as link_names};
use crate::service::{self, Service, ServiceError};
use crate::settings::{Settings, SettingsError};
use crate::store::{Contents, Store, StoreError};
use crate::sys::caps;
use crate::sys::mount::{self, MountError};
use crate::sys::namespace_helper::{HelperError, HelperProcess};
use crate::sys::open_files;
use crate::telemetry::metrics::{self, MetricsError};
use crate::telemetry::readiness::Readiness;
use crate::telemetry::server::{ListenError, TelemetryServer};

/// For the edge's connections when the daemon ends.
const DRAIN: Duration = Duration::from_secs(10);

/// For one connection of the edge to a workload.
const DIAL: Duration = Duration::from_secs(5);

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings file.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The kernel lacks what nothing works without.
    #[error("this kernel or process lacks what the gateway cannot do without: {0}; `gateway check` says more")]
    Features(String),
    /// The bpf file system.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The service namespace.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The namespace helper.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// Capabilities, threads, signals.
    #[error("cannot {doing}: {source}; start the gateway as root, with the limits that its unit file has")]
    Process {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel's tables.
    #[error(transparent)]
    Tables(#[from] OpenError),
    /// One of them.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A host side, or tg0.
    #[error("{0}")]
    Programs(String),
    /// Segmentation.
    #[error(transparent)]
    Segmentation(#[from] segmentation::Error),
    /// The edge.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// DNS.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The metrics' address.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Settings and features, for `gateway check`. Starts nothing.
pub fn check(config: Option<&Path>) -> Result<Vec<Check>, StartError> {
    let settings = Settings::load(config)?;
    Ok(features::checks(&settings, vlan_support()))
}

/// The runtime's: two that may be held up by looks at a whole node, and two that answer meanwhile.
const THREADS: usize = 4;

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(config: Option<&Path>) -> Result<(), StartError> {
    let settings = Settings::load(config)?;
    let prepared = prepare(&settings)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).thread_name("gateway").enable_all().build();
    let runtime = runtime.map_err(|source| StartError::Process { doing: "start threads", source })?;
    runtime.block_on(serve(settings, prepared))
}

/// What needs all rights.
struct Prepared {
    service: Service,
    helper: HelperProcess,
    vlan: bool,
}

fn prepare(settings: &Settings) -> Result<Prepared, StartError> {
    let vlan = vlan_support();
    let checks = features::checks(settings, vlan);
    for check in checks.iter().filter(|check| !check.ok) {
        tracing::warn!(feature = check.name, found = check.found, "{}", check.mend);
    }
    if !features::usable(&checks) {
        let missing = checks.iter().filter(|check| !check.ok && check.weight == features::Weight::Required);
        return Err(StartError::Features(
            missing.map(|c| format!("{} ({})", c.name, c.found)).collect::<Vec<_>>().join(", "),
        ));
    }
    if let Err(error) = open_files::raise() {
        tracing::warn!(%error, "the limit of open files cannot be raised; lookups fail while it is reached");
    }
    mount::bpf_file_system(&settings.node.bpffs)?;
    let helper = HelperProcess::start()?;
    let service = Service::start(&service::Config {
        runtime_dir: settings.node.runtime_dir.clone(),
        handles_v4: settings.node.handles_v4,
        handles_v6: settings.node.handles_v6,
    })?;
    caps::keep(caps::DAEMON).map_err(|source| StartError::Process { doing: "give up capabilities", source })?;
    Ok(Prepared { service, helper, vlan })
}

fn vlan_support() -> bool {
    let asked = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async {
            let netlink = crate::sys::netlink::Netlink::open()?;
            netlink.supports_vlan().await
        })
    });
    matches!(asked, Ok(Ok(true)))
}

async fn serve(settings: Settings, prepared: Prepared) -> Result<(), StartError> {
    let recorder = metrics::start()?;
    let readiness = Readiness::default();
    let restoring = readiness.wait_for("stored state");
    let socket = AdminSocket::bind(&settings.node.runtime_dir)?;
    let (shutdown, ended) = watch::channel(false);
    let telemetry = TelemetryServer::bind(settings.metrics.listen, recorder, readiness.clone()).await?;
    tokio::spawn(telemetry.serve(until(ended.clone())));

    // Capabilities belong to threads, and this one began before they were given up.
    let given_up = prepared.service.spawn(async { caps::keep(caps::DAEMON) }).await;
    let given_up = given_up.map_err(io::Error::other).and_then(|kept| kept);
    given_up.map_err(|source| StartError::Process { doing: "give up capabilities", source })?;
    let gate = Arc::new(assemble(settings, prepared)?);
    restore(&gate).await?;
    let names = Names { enforcement: Arc::clone(&gate.enforcement), upstreams: Arc::clone(&gate.upstreams) };
    let limits = dns::Limits {
        cache: gate.settings.limits.dns_cache as usize,
        queries_per_second: gate.settings.limits.dns_queries_per_second,
        tls_roots: gate.settings.dns.tls_roots.clone(),
        lookups_per_second: gate.settings.limits.dns_lookups_per_second,
        ..dns::Limits::new(gate.settings.node.handles_v4, gate.settings.node.handles_v6)
    };
    let node = tokio::runtime::Handle::current();
    let resolution: Arc<dyn Resolution> = Arc::new(names);
    let dns = Arc::new(dns::Server::start(&gate.service, node, resolution, limits).await?);
    gate.upstream_health.get_or_init(|| dns.health().clone());
    let verifying =
        Verifying::start(&gate, &dns).map_err(|source| StartError::Process { doing: "start threads", source })?;
    {
        let _turn = gate.changing.lock().await;
        cni::catch_up(&gate, socket.path()).await;
    }
    let mut watching = watching::start(&gate);
    drop(restoring);
    tracing::info!(socket = %socket.path().display(), "ready");

    let admin: Arc<dyn crate::admin::Control> = Arc::new(Admin(Arc::clone(&gate)));
    let serving = tokio::spawn(socket.serve(admin, until(ended)));
    stop_requested().await?;
    tracing::info!("ending: programs, tables and links stay");
    shutdown.send_replace(true);
    let cut = gate.edge.shutdown(DRAIN).await;
    if cut > 0 {
        tracing::warn!(cut, "edge connections were still open after {DRAIN:?}");
    }
    // The socket's file goes with the server.
    let _ = serving.await;
    watching.shutdown().await;
    verifying.stop();
    Ok(())
}

fn assemble(settings: Settings, prepared: Prepared) -> Result<Gate, StartError> {
    let (store, opened) = Store::open(&settings.node.state_dir)?;
    match opened.needs_attention() {
        true => tracing::error!("{opened}"),
        false => tracing::info!("{opened}"),
    }
    let numbers = Numbers::reserve(&store)?;
    let tables = Tables::open(&settings.limits, &settings.node.bpffs)?;
    let learned = tables.learned()?.into_iter().map(|entry| (entry.workload.0, entry.address, slots(&entry)));
    let ledger = Ledger::restore(ledger_limits(&settings), tables.names()?, learned);
    let enforcement = Arc::new(Enforcement::new(tables, ledger, numbers, &settings)?);
    let service = Arc::new(prepared.service);
    let helper = prepared.helper.connect()?;
    let segmentation = Segmentation::open(helper, Arc::new(Sealer(Arc::clone(&enforcement))))?;
    let dial: Arc<dyn Dial> = Arc::new(ServiceDial(Arc::clone(&service)));
    let edge = Edge::start(&settings.edge.listen, dial, FilesDir(settings.node.files_dir.clone()))?;
    let upstreams: Arc<[Upstream]> = upstreams(&settings).into();
    let segmentation_node =
        segmentation::Node { seed: link_names::node_seed(), edge: settings.edge.listen.clone(), ..Default::default() };
    let gate = Gate::new(Parts {
        settings,
        store,
        enforcement,
        segmentation,
        segmentation_node,
        edge,
        service,
        upstreams,
        vlan: prepared.vlan,
    });
    if opened.needs_attention() {
        gate.raise(
            "store",
            ConditionState::Degraded,
            opened.to_string(),
            "compare `netctl get all -A` with what you applied last, and apply it again",
        );
    }
    if gate.upstreams.is_empty() {
        gate.raise(
            "dns",
            ConditionState::Degraded,
            "the node has no DNS server".to_owned(),
            "set `[dns] upstreams`, or a `nameserver` in /etc/resolv.conf, and restart",
        );
    }
    Ok(gate)
}

/// The stored state, in force again. What cannot be done now is tried again by [`watching`].
async fn restore(gate: &Arc<Gate>) -> Result<(), StartError> {
    let desired = stored(gate, &gate.store.contents());
    watching::look_at_node(gate).await;
    // before a bridge is up: nothing leaves with a tenant's address
    reload::in_place(|| gate.enforcement.masquerade_also(&desired))?;
    watching::look_at_uplink(gate, true).await;
    let status = gate.segmentation.restore(reload::segments(gate, &desired)).await;
    watching::note_segmentation(gate, &status);
    let failed = |error: super::ports::SealError| StartError::Programs(error.to_string());
    gate.enforcement.adopt(&desired, &status).map_err(failed)?;
    gate.enforcement.serve_namespace(gate.service.tg0_ifindex(), gate.service.tg1_mac()).map_err(failed)?;
    let begin = Instant::now();
    reload::in_place(|| gate.enforcement.install(&desired, &gate.store)).map_err(|error| match error {
        InstallError::Table(error) => StartError::Table(error),
        InstallError::Store(error) => StartError::Store(error),
    })?;
    tracing::info!(workloads = desired.workloads.len(), took = ?begin.elapsed(), "the stored policies are in force");
    reload::in_place(|| gate.enforcement.forget_strangers(&desired)).map_err(failed)?;
    watching::look_at_uplink(gate, false).await;
    let (prepared, problems) = gate.edge.check_accepted(&endpoints::edge_config(&desired));
    problems.iter().for_each(|problem| tracing::warn!("{problem}"));
    gate.edge.install(prepared);
    gate.desired.send_replace(Arc::new(desired));
    Ok(())
}

/// What the store keeps, read again. A resource that this version does not take is left out and said.
fn stored(gate: &Gate, contents: &Contents) -> Desired {
    let mut desired = Desired::default();
    for (name, kept) in contents.resources.iter() {
        match config::from_json(&name.to_string(), &kept.value) {
            Ok(Resource::AddressSet(set)) => with_prefixes(&mut desired, set, contents.sets.get(name)),
            Ok(resource) => drop(desired.resources.insert(resource)),
            Err(problems) => {
                let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                gate.raise(
                    &name.to_string(),
                    ConditionState::Failed,
                    text,
                    "apply it anew in a form that this version takes",
                );
            }
        }
    }
    let (workloads, held) = (Arc::make_mut(&mut desired.workloads), Arc::make_mut(&mut desired.held));
    for kept in contents.workloads.values() {
        let workload = kept.value.clone();
        let name = WorkloadName { namespace: workload.namespace.clone(), name: workload.name.clone() };
        match workload.left {
            None => workloads.insert(name, Arc::new(workload)),
            Some(_) => held.insert(name, Arc::new(workload)),
        };
    }
    desired
}

/// A set with the prefixes that were in force last; its file, if it has one, is looked at soon.
fn with_prefixes(desired: &mut Desired, set: AddressSet, prefixes: Option<&Prefixes>) {
    let prefixes = prefixes.cloned().unwrap_or_default();
    let source = match &set.source {
        SetSource::Cidrs(_) => SetSource::Cidrs(prefixes),
        SetSource::File(file) => {
            desired.files.insert(set_key(&set), Loaded { prefixes, stamp: None, at: None });
            SetSource::File(file.clone())
        }
    };
    desired.resources.insert(AddressSet { source, ..set });
}

/// The kernel's slots as the ledger has them.
fn slots(entry: &LearnedAddress) -> ledger::Slots {
    let mut slots: Vec<_> = entry.slots.iter().collect();
    slots.sort_by_key(|slot| std::cmp::Reverse(slot.expires));
    let slot = |slot: &&LearnedSlot| ledger::Slot {
        name: slot.name,
        expires_ns: u64::try_from(slot.expires.as_nanos()).unwrap_or(u64::MAX),
    };
    std::array::from_fn(|index| slots.get(index).map(slot))
}

fn ledger_limits(settings: &Settings) -> ledger::Limits {
    let learned = settings.limits.learned as usize;
    ledger::Limits {
        addresses: learned,
        names: learned,
        addresses_per_workload: (learned / 4).max(1),
        pairs_per_workload: (learned / 2).max(1),
        names_per_address: 64,
    }
}

/// The configured servers, or the node's own at port 53.
fn upstreams(settings: &Settings) -> Vec<Upstream> {
    match settings.dns.upstreams.as_slice() {
        [] => resolv_conf(&PathBuf::from("/etc/resolv.conf")).into_iter().map(Upstream::plain).collect(),
        configured => configured.to_vec(),
    }
}

/// `nameserver` lines, resolv.conf(5); an address with a zone is left out.
fn resolv_conf(path: &Path) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse().ok();
    text.lines().filter_map(server).collect()
}

struct ServiceDial(Arc<Service>);

impl Dial for ServiceDial {
    fn dial(&self, source: IpAddr, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> {
        let service = Arc::clone(&self.0);
        Box::pin(async move { service.dial(source, to, DIAL).await })
    }
}

async fn until(mut ended: watch::Receiver<bool>) {
    // The sender lives as long as the daemon serves.
    let _ = ended.wait_for(|ended| *ended).await;
}

async fn stop_requested() -> Result<(), StartError> {
    let failed = |source| StartError::Process { doing: "listen for signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
