//! The real side: tables written as the daemon writes them, and the programs run on frames.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use config::names::DnsName;
use gateway::egress::attach::Program;
use gateway::egress::tables::Tables;
use gateway::egress::tables::flows::Flow;
use gateway::egress::tables::hold::{HeldFlow, Settled, Verdict};
use gateway::egress::tables::names::LearnedSlot;
use gateway::egress::tables::node::Listener;
use gateway::egress::tables::workloads::{PortAddresses, WorkloadEntry};
use gateway::settings::Limits;
use gateway::sys::bpf::{Map, PerCpuArray, boot_time};
use gateway::workload::{Address, Mac, WorkloadId};
use policy::ledger::{Changes, Slots};
use policy::reason::Reason;
use policy::tables::{ClassId, NameId, PolicyId, RuleId, RuleName, Step};
use policy::{Compiled, Ledger, Model, Node};

use crate::flows::{Ends, OTHER_IDLE, Ports, TCP_IDLE, Told};
use crate::held::{self, Said};
use crate::node::{Bpffs, ifindex, ip, unshare_network};
use crate::reference::{Action, Member};
use crate::scenario::{Device, Entrance, Phase, Shot, WORKLOADS, subnets};
use crate::world::{SECOND, World};

/// More than this of the real clock in one scenario is too near to what the model is unsure of.
const HELD_UP: Duration = Duration::from_secs(2);
const PAIRS: usize = 6;
const TG1_MAC: Mac = Mac([2, 0, 0, 0, 0x77, 1]);
const GATEWAY_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
/// Time on the model's clock at which a scenario begins: about half of a world's lookups have expired then.
pub(crate) const BEGIN: u64 = 200 * SECOND;
/// Bytes of `struct flow_key`, `struct flow`, `struct fragment_key`, `struct fragment`, and where their times are.
type FlowKey = [u8; 44];
type FlowValue = [u8; 88];
type FragmentKey = [u8; 44];
type FragmentValue = [u8; 16];
const FLOW_TIMES: [usize; 2] = [0, 8];
const FRAGMENT_TIMES: [usize; 1] = [0];

/// Tables and programs on a node of its own.
pub(crate) struct Programs {
    pub(crate) tables: Tables,
    devices: Vec<u32>,
    /// Where routed workloads have their gateway.
    bridge: u32,
    counters: PerCpuArray<[u64; 2]>,
    flows: Map<FlowKey, FlowValue>,
    fragments: Map<FragmentKey, FragmentValue>,
    next_workload: u32,
    next_generation: u32,
    next_policy: PolicyId,
    _bpffs: Bpffs,
}

/// What the daemon knows during one scenario.
pub(crate) struct Run {
    pub(crate) ids: Vec<u32>,
    pub(crate) ledger: Ledger,
    compiled: Compiled,
    /// The egress policy that each workload was switched to.
    policies: Vec<Option<PolicyId>>,
    pub(crate) now: u64,
    slots: BTreeMap<(u32, IpAddr), Slots>,
    rule_names: BTreeMap<RuleId, RuleName>,
    counts: Vec<u64>,
    began: Instant,
}

/// What a program did with a frame.
pub(crate) struct Done {
    pub(crate) reason: Reason,
    pub(crate) action: Action,
    pub(crate) frame: Vec<u8>,
}

impl Programs {
    /// `change`: other limits than the usual.
    pub(crate) fn with(change: impl FnOnce(&mut Limits)) -> Self {
        unshare_network();
        ip("link set lo up");
        for pair in 0..PAIRS {
            ip(&format!("link add a{pair} type veth peer name b{pair}"));
        }
        let devices =
            (0..PAIRS).flat_map(|pair| [ifindex(&format!("a{pair}")), ifindex(&format!("b{pair}"))]).collect();
        ip("link add br0 up type bridge");
        let bpffs = Bpffs::mount();
        let mut limits = Limits {
            // small ones are quicker to walk
            flows: 2048,
            learned: 1024,
            tcp_idle_s: TCP_IDLE,
            other_idle_s: OTHER_IDLE,
            ..Limits::default()
        };
        change(&mut limits);
        let tables = Tables::open(&limits, &bpffs.path()).unwrap_or_else(|e| panic!("{e}"));
        let maps = tables.folder().join("maps");
        // A new value ends the timer in it (`array_map_update_elem` of kernel/bpf/arraymap.c): nothing is taken away behind
        // the model's back.
        Map::<u32, [u8; 40]>::open(&maps.join("sweeper"), "sweeper").unwrap().set(&0, &[0; 40]).unwrap();
        let this = Self {
            counters: PerCpuArray::open(&maps.join("counters")).unwrap(),
            flows: Map::open(&maps.join("flows"), "flows").unwrap(),
            fragments: Map::open(&maps.join("fragments"), "fragments").unwrap(),
            tables,
            devices,
            bridge: ifindex("br0"),
            next_workload: 1,
            next_generation: 1,
            next_policy: PolicyId(1),
            _bpffs: bpffs,
        };
        this.tables.set_service(this.devices[WORKLOADS + 3], TG1_MAC).unwrap();
        this.tables.set_inspector(Some(this.devices[WORKLOADS + 4])).unwrap();
        let segments = [0, 1].map(|network| (this.segment(network), network as u32 + 1));
        this.tables.set_segments(&segments.into()).unwrap();
        let own = [0, 1].map(|network| (network as u32 + 1, subnets(network)));
        this.tables.set_subnets(&own.into()).unwrap();
        this
    }

    fn segment(&self, network: usize) -> u32 {
        self.devices[WORKLOADS + network]
    }

    /// New workloads at the devices; nothing of an earlier run can be theirs.
    pub(crate) fn begin(&mut self) -> Run {
        let first = self.next_workload;
        self.next_workload += WORKLOADS as u32;
        Run {
            ids: (first..self.next_workload).collect(),
            ledger: Ledger::new(policy::ledger::Limits::default()),
            compiled: Compiled::new(self.next_generation, self.next_policy),
            policies: vec![None; WORKLOADS],
            now: BEGIN,
            slots: BTreeMap::new(),
            rule_names: BTreeMap::new(),
            counts: self.counts(),
            began: Instant::now(),
        }
    }

    /// The machine held the run up: the real clock went on too far, and it says nothing.
    pub(crate) fn is_disturbed(&self, run: &Run) -> bool {
        run.began.elapsed() > HELD_UP
    }

    /// Puts a phase in force, in the daemon's order: what the next policies need, names for both policies, entries, names for
    /// the new one, what goes.
    pub(crate) fn install(&mut self, run: &mut Run, phase: &Phase, world: &World, members: &[Member]) {
        let step = run.compiled.advance(&world.model(), world.subjects.iter().cloned());
        (self.next_generation, self.next_policy) = run.compiled.next_numbers();
        self.tables.apply(&step).unwrap();
        run.rule_names.extend(run.compiled.generation().rule_names);
        let egress = |member: &Member| run.compiled.policy(&member.subject).map(|policy| policy.egress);
        let next: Vec<Option<PolicyId>> = members.iter().map(egress).collect();
        let names: Vec<NameId> = run.ledger.names().map(|(id, _)| id).collect();
        for policy in next.iter().flatten().collect::<BTreeSet<_>>() {
            names.iter().for_each(|id| self.write_class(run, *policy, *id));
        }
        for (index, next) in next.iter().enumerate() {
            let both: Vec<PolicyId> = run.policies[index].into_iter().chain(*next).collect();
            self.reslot(run, index, &both);
        }
        let exposed = world.exposed().into_iter();
        let exposed = exposed.map(|(subject, port)| (WorkloadId(run.ids[subject as usize]), port, 6));
        self.tables.set_exposed(&exposed.collect()).unwrap();
        self.tables.set_node_addresses(&world.node.addresses).unwrap();
        let listeners = world.node.listeners.iter().map(|listener| Listener {
            address: listener.address,
            port: listener.port,
            protocol: listener.protocol.number(),
        });
        self.tables.set_node_listeners(&listeners.collect()).unwrap();
        for (index, member) in members.iter().enumerate() {
            let policy = run.compiled.policy(&member.subject);
            assert_eq!(policy.is_none(), member.sealed, "what is not compiled is sealed");
            let entry = WorkloadEntry {
                id: WorkloadId(run.ids[index]),
                network: member.network as u32 + 1,
                epoch: member.epoch,
                generation: policy.map_or(0, |policy| policy.generation),
                egress_policy: policy.map_or(PolicyId(0), |policy| policy.egress),
                ingress_policy: policy.map_or(PolicyId(0), |policy| policy.ingress),
                sealed: member.sealed,
                external: member.external,
                open: policy.is_some_and(|policy| policy.open),
                probes: policy.is_some_and(|policy| policy.probes),
                rejects: member.rejects,
                flow_quota: phase.quota as u32,
                mac: member.mac,
                gateway_mac: GATEWAY_MAC,
                bridge: member.routed.then_some(self.bridge),
                masqueraded: member.translated,
            };
            self.tables.switch(self.devices[index], &entry).unwrap();
            let own = member.own.map(|(address, handle)| Address { address, handle });
            let port = PortAddresses { ifindex: self.devices[index], entry, addresses: &own };
            self.tables.set_addresses(&[port]).unwrap();
        }
        for (index, next) in next.iter().enumerate() {
            self.reslot(run, index, next.as_slice());
        }
        run.policies = next;
        self.take_out(run, step);
        self.look_up(run, world, members);
    }

    /// What no entry mentions any more goes.
    fn take_out(&self, run: &mut Run, first: Step) {
        let second = run.compiled.settle();
        self.tables.apply(&second).unwrap();
        self.tables.remove_rules(&[first.dead, second.dead].concat()).unwrap();
        let names: Vec<NameId> = run.ledger.names().map(|(id, _)| id).collect();
        let gone = second.gone.iter().flat_map(|policy| names.iter().map(|name| (*policy, *name)));
        self.tables.remove_name_classes(&gone.collect::<Vec<_>>()).unwrap();
    }

    /// The lookups of a world, whose times lie before now.
    fn look_up(&self, run: &mut Run, world: &World, members: &[Member]) {
        let mut lookups = world.lookups.clone();
        lookups.sort_by_key(|lookup| lookup.at);
        for lookup in lookups {
            let Some(policy) = run.compiled.policy(&members[lookup.workload as usize].subject) else { continue };
            let mut rules = Vec::new();
            let Run { compiled, ledger, .. } = run;
            let class_of = |name: &DnsName| {
                let made = compiled.name_class(policy.egress, name)?;
                rules.extend(made.new_rules);
                Some(made.class)
            };
            let (id, at) = (run.ids[lookup.workload as usize], lookup.at + run.now - BEGIN);
            let answer = [(lookup.address, lookup.ttl)];
            let changes = ledger.learn(at, id, &lookup.name, &answer, class_of).unwrap();
            self.tables.write_rules(&rules).unwrap();
            self.write(run, &changes);
        }
    }

    /// For each pair of classes on the way between two policies, for each class under one.
    fn reslot(&self, run: &mut Run, index: usize, policies: &[PolicyId]) {
        let mut rules = Vec::new();
        let Run { compiled, ledger, .. } = run;
        let changes = ledger.reslot(run.now, run.ids[index], |name| {
            let mut class = |policy: &PolicyId| {
                let made = compiled.name_class(*policy, name)?;
                rules.extend(made.new_rules);
                Some(made.class)
            };
            let classes: Vec<Option<ClassId>> = policies.iter().map(&mut class).collect();
            classes.iter().any(Option::is_some).then_some(classes)
        });
        self.tables.write_rules(&rules).unwrap();
        for slot in changes.slots.iter().flat_map(|write| write.slots.iter().flatten()) {
            policies.iter().for_each(|policy| self.write_class(run, *policy, slot.name));
        }
        self.write_slots(run, &changes);
    }

    /// What a slot refers to, then the slot.
    fn write(&self, run: &mut Run, changes: &Changes) {
        for write in &changes.slots {
            let index = run.ids.iter().position(|id| *id == write.workload).unwrap();
            let Some(policy) = run.policies[index] else { continue };
            write.slots.iter().flatten().for_each(|slot| self.write_class(run, policy, slot.name));
        }
        self.write_slots(run, changes);
    }

    fn write_slots(&self, run: &mut Run, changes: &Changes) {
        for (workload, address) in &changes.removed {
            run.slots.remove(&(*workload, *address));
            self.tables.learn(WorkloadId(*workload), *address, &[]).unwrap();
        }
        for (id, name) in &changes.names {
            self.tables.write_name(*id, name).unwrap();
        }
        for write in &changes.slots {
            run.slots.insert((write.workload, write.address), write.slots);
            self.tell(run, write.workload, write.address);
        }
    }

    /// An address's names as they stand on the model's clock: in the kernel either for an hour, or over.
    fn tell(&self, run: &Run, workload: u32, address: IpAddr) {
        let slots = run.slots[&(workload, address)].into_iter().flatten().map(|slot| {
            let left = if slot.expires_ns > run.now { Duration::from_secs(3600) } else { Duration::ZERO };
            LearnedSlot { name: slot.name, expires: if left.is_zero() { left } else { boot_time() + left } }
        });
        self.tables.learn(WorkloadId(workload), address, &slots.collect::<Vec<_>>()).unwrap();
    }

    fn write_class(&self, run: &mut Run, policy: PolicyId, id: NameId) {
        let Run { compiled, ledger, .. } = run;
        if let Some(made) = ledger.name(id).and_then(|name| compiled.shown_class(policy, name)) {
            self.tables.write_rules(&made.new_rules).unwrap();
            self.tables.write_name_class(policy, id, Some(made.class)).unwrap();
        }
    }

    /// Time passes: what has a time gets older, and names expire.
    pub(crate) fn pause(&self, run: &mut Run, seconds: u64) {
        run.now += seconds * SECOND;
        let older = |value: &mut [u8], at: usize| {
            let time = value[at..].first_chunk_mut::<8>().unwrap();
            *time = u64::from_ne_bytes(*time).saturating_sub(seconds * SECOND).to_ne_bytes();
        };
        let mine = |key: &[u8]| run.ids.contains(&u32::from_ne_bytes(*key.first_chunk().unwrap()));
        for (key, mut value) in self.flows.dump().unwrap().into_iter().filter(|(key, _)| mine(key)) {
            FLOW_TIMES.iter().for_each(|at| older(&mut value, *at));
            self.flows.set(&key, &value).unwrap();
        }
        for (key, mut value) in self.fragments.dump().unwrap().into_iter().filter(|(key, _)| mine(key)) {
            FRAGMENT_TIMES.iter().for_each(|at| older(&mut value, *at));
            self.fragments.set(&key, &value).unwrap();
        }
        for (workload, address) in run.slots.keys() {
            self.tell(run, *workload, *address);
        }
    }

    /// Runs a frame. `expected` is looked at first, since it is nearly always right.
    pub(crate) fn try_shot(&self, run: &mut Run, shot: &Shot, expected: Reason) -> Result<Done, String> {
        let device = match (shot.program, shot.device) {
            (Program::FromService, _) => 0,
            (_, Device::Workload(index)) => self.devices[index],
            (_, Device::Unknown) => self.devices[WORKLOADS + 2],
        };
        let entered_by = match shot.entered_by {
            Entrance::Node => 0,
            Entrance::Workload(index) => self.devices[index],
            Entrance::Segment(network) => self.segment(network),
            Entrance::Stranger => self.devices[WORKLOADS + 2],
        };
        let answer = self.tables.try_frame(shot.program, &shot.frame, device, entered_by).map_err(|e| e.to_string())?;
        let reason = self.counted_now(run, Some(expected)).ok_or("no counter moved")?;
        let action = match answer.action {
            2 => Action::Drop,
            -1 => Action::Pass,
            7 if reason.passes() => Action::Redirect,
            7 => Action::Reject,
            other => return Err(format!("the program returned {other}")),
        };
        Ok(Done { reason, action, frame: answer.packet })
    }

    /// The inspector's word on a flow that waits, as the daemon brings it: the name's number and its class, then the verdict.
    pub(crate) fn settle(&self, run: &mut Run, said: &Said) -> Result<(), String> {
        let name = said.name.as_ref().map(|name| self.lend(run, said.ends.workload, name));
        let flow = self.flow(run, &said.ends).ok_or("the flow is not in the kernel's table")?;
        let of = |opened: Duration| HeldFlow {
            workload: flow.workload,
            local: SocketAddr::new(flow.local, flow.local_port),
            remote: SocketAddr::new(flow.remote, flow.remote_port),
            protocol: flow.protocol,
            opened_ns: opened.as_nanos() as u64,
        };
        let verdict = Verdict { reason: said.decision.reason, name, read: None };
        let [other, own] = [flow.opened + Duration::from_nanos(1), flow.opened].map(|opened| {
            let took = self.tables.settle(&of(opened), &verdict);
            took.unwrap_or_else(|error| panic!("{error}"))
        });
        match (other, own) {
            (Settled::Gone, Settled::Now) => Ok(()),
            (other, own) => Err(format!("of another flow {other:?}, its own {own:?}")),
        }
    }

    fn lend(&self, run: &mut Run, index: usize, name: &DnsName) -> NameId {
        let (id, text) = run.ledger.lend(name).unwrap();
        if let Some(text) = text {
            self.tables.write_name(id, &text).unwrap();
        }
        if let Some(policy) = run.policies[index] {
            self.write_class(run, policy, id);
        }
        id
    }

    fn flow(&self, run: &Run, ends: &Ends) -> Option<Flow> {
        let Ports::Pair { local, remote } = ends.ports else { return None };
        let wanted = (run.ids[ends.workload], ends.protocol, ends.local, local, ends.remote, remote);
        self.tables.flows().unwrap().into_iter().find(|flow| {
            let own = (flow.workload.0, flow.protocol, flow.local, flow.local_port, flow.remote, flow.remote_port);
            own == wanted
        })
    }

    /// What stands in front of a frame that goes to the inspector: whose it is, and of which flow.
    pub(crate) fn check_head(&self, run: &Run, shot: &Shot, done: &Done) -> Result<(), String> {
        let Some(index) = shot.device.workload() else { return Ok(()) };
        if (done.reason, done.action) != (Reason::Held, Action::Redirect) {
            return Ok(());
        }
        let (head, ends) = (held::check(&shot.frame, &done.frame)?, held::ends(&shot.frame, index));
        let flow = ends.and_then(|ends| self.flow(run, &ends)).ok_or("its flow is not in the kernel's table")?;
        let whose = (head.ifindex, head.workload.0, Duration::from_nanos(head.opened_ns));
        let wanted = (self.devices[index], run.ids[index], flow.opened);
        if whose == wanted { Ok(()) } else { Err(format!("the head says {whose:?}, and it is {wanted:?}")) }
    }

    /// The reason that a program's last run was counted as. `expected` is looked at first.
    pub(crate) fn counted_now(&self, run: &mut Run, expected: Option<Reason>) -> Option<Reason> {
        let is_one_more = |reason: &Reason| self.count(*reason as usize) == run.counts[*reason as usize] + 1;
        let reason =
            expected.filter(is_one_more).or_else(|| Reason::ALL.iter().find(|reason| is_one_more(reason)).copied())?;
        run.counts[reason as usize] += 1;
        Some(reason)
    }

    /// All counters are as the frames so far made them.
    pub(crate) fn check_counts(&self, run: &Run) -> Result<(), String> {
        let now = self.counts();
        if now == run.counts { Ok(()) } else { Err(format!("counters: {now:?}\nexpected: {:?}", run.counts)) }
    }

    /// The open flows of this run's workloads, as the model has them.
    pub(crate) fn flows(&self, run: &Run) -> BTreeMap<Ends, Told> {
        let own = |id: WorkloadId| run.ids.iter().position(|own| *own == id.0);
        let flows = self.tables.flows().unwrap().into_iter();
        let told = flows.filter_map(|flow| {
            let echo = flow.protocol == 1 || flow.protocol == 58;
            let ports = match (flow.protocol, flow.local_port, flow.remote_port) {
                (6 | 17 | 132, local, remote) => Ports::Pair { local, remote },
                (_, id, 0) if echo => Ports::AskedHere(id),
                (_, 0, id) if echo => Ports::AskedThere(id),
                _ => Ports::None,
            };
            let (local, remote, protocol) = (flow.local, flow.remote, flow.protocol);
            let ends = Ends { workload: own(flow.workload)?, protocol, local, remote, ports };
            let rule = run.rule_names.get(&flow.rule).cloned();
            let name = flow.name.and_then(|id| run.ledger.name(id).cloned());
            let (origin, reason, sent, received) = (flow.origin, flow.reason, flow.sent, flow.received);
            Some((ends, Told { origin, reason, rule, name, sent, received }))
        });
        told.collect()
    }

    /// What the quota of a workload counts.
    pub(crate) fn counted(&self, run: &Run, index: usize) -> usize {
        self.tables.open_flows(WorkloadId(run.ids[index])).unwrap() as usize
    }

    /// Takes everything away again.
    pub(crate) fn end(&self, mut run: Run) {
        for id in &run.ids {
            self.tables.forget_workload(WorkloadId(*id)).unwrap();
        }
        let node = Node::default();
        let step = run.compiled.advance(&Model::new([], [], [], [], &node), []);
        self.tables.apply(&step).unwrap();
        self.take_out(&mut run, step);
        self.tables.remove_names(&run.ledger.names().map(|(id, _)| id).collect()).unwrap();
    }

    fn count(&self, reason: usize) -> u64 {
        self.counters.get(reason as u32).unwrap().iter().map(|[packets, _]| packets).sum()
    }

    fn counts(&self) -> Vec<u64> {
        (0..64).map(|reason| self.count(reason)).collect()
    }
}
