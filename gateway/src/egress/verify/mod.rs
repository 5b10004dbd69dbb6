//! Hold and verify: who a flow asks for is read before anything of it leaves.
//!
//! 1. `bpf/hold.h` opens the flow as held, lets TCP's handshake through, and sends the workload's payload to a TAP.
//! 2. [`frame`] reads the frame: whose it is, and what it carries.
//! 3. [`inspect`] puts the flow's first bytes together until they name a server, or never will; [`waiting`] keeps the frames
//!    meanwhile, within bounds.
//! 4. [`Judge`], the composition, has the policy decide on that name, and writes the verdict into the flow.
//! 5. The frames go back into the workload's device as they were: they pass now, or the kernel's program refuses them
//!    and tells the workload; the other side of a refused connection is reset.
//!
//! One thread does it, without locks of its own. Where it is not, stands still, or has too much to do, frames are dropped and
//! sent again by the workload: held flows wait, and all others go on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use inspect::{Followed, Hello, Inspection, Progress, Unreadable};

use self::frame::{Held, Kept};
use self::waiting::{Key, Refused, Waiting};
use super::tables::hold::HeldFlow;
use super::tables::nanoseconds;
use crate::sys::bpf::boot_time;
use crate::sys::tap::{LONGEST, Tap};
use crate::telemetry::metrics;

mod frame;
mod waiting;

/// The TAP's name.
pub const DEVICE: &str = "tg-inspect";

/// How long a flow's first bytes are waited for, from its first frame on.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Frames that are taken before it is asked whether to go on.
const BATCH: usize = 64;
/// Longest time until it is asked whether to go on, and what has waited too long is judged.
const TICK: Duration = Duration::from_millis(100);
/// Frames of one flow that are kept until it has shown enough.
const FRAMES: usize = 512;
/// Between two judgements of a flow that was to be judged later, and how long it may be so.
const AGAIN: Duration = Duration::from_millis(20);
const UNDECIDED: Duration = Duration::from_secs(3);

/// What a flow's first bytes show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A ClientHello.
    Hello(Hello),
    /// Something that no name can be read from.
    Unreadable(Unreadable),
    /// Too little, for too long.
    Late,
}

/// What was read of a TCP stream that shows a name.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// The sequence number behind it.
    pub end: u32,
    /// The records that the ClientHello is in.
    pub hello: &'a [u8],
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its verdict is in the kernel: it passes.
    Passes,
    /// Its verdict is in the kernel: it does not.
    Denied,
    /// What was read does not pass, and the flow goes on as it was: something else of it was verified before.
    Refused,
    /// There is no such flow any more.
    Gone,
    /// No verdict could be written; it stays held.
    Failed,
    /// What is needed to decide is being asked for: it is to be judged again soon.
    Later,
}

impl Outcome {
    /// The label `outcome`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Later => "later",
        }
    }
}

/// How much time there is to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// It was not asked before, and may be [later](Outcome::Later).
    First,
    /// It was asked before, and may be later still.
    Again,
    /// It must be now.
    Last,
}

/// Who decides.
pub trait Judge {
    /// Decides on a flow by what it shows, and writes the verdict into it.
    fn judge(&mut self, flow: &HeldFlow, shown: &Shown, stream: Option<Stream<'_>>, time: Time) -> Outcome;

    /// Whether what it decides by is still so; if not, another one is to be asked.
    fn is_current(&self) -> bool;
}

/// The reader of held flows.
#[derive(Debug)]
pub struct Inspector {
    tap: Tap,
    waiting: Waiting,
    buffer: Vec<u8>,
}

impl Inspector {
    /// Opens the TAP in this thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Self { tap: Tap::open(DEVICE)?, waiting: Waiting::default(), buffer: vec![0; LONGEST] })
    }

    /// The TAP's number.
    pub fn ifindex(&self) -> u32 {
        self.tap.ifindex()
    }

    /// Reads and gives back, until the judge's grounds are no more so.
    pub fn serve(&mut self, judge: &mut dyn Judge) -> io::Result<()> {
        while judge.is_current() {
            for _ in 0..BATCH {
                if !self.take(judge)? {
                    break;
                }
            }
            for (key, mut late) in self.waiting.due(now()) {
                let shown = late.shown.take().unwrap_or(Shown::Late);
                conclude(&self.tap, &mut self.waiting, judge, key, late, shown);
            }
            metrics::held(self.waiting.flows(), self.waiting.bytes());
            wait(self.tap.as_fd(), if self.waiting.is_undecided() { AGAIN } else { TICK })?;
        }
        Ok(())
    }

    /// One frame, if there is one.
    fn take(&mut self, judge: &mut dyn Judge) -> io::Result<bool> {
        let Self { tap, waiting, buffer } = self;
        let Some(bytes) = tap.read(buffer)? else { return Ok(false) };
        let Some(held) = Held::read(bytes) else { return Ok(true) };
        metrics::hold_queued(Duration::from_nanos(now().saturating_sub(held.head.held_ns)));
        if !held.is_of_one_connection() {
            metrics::inspection("contradicted");
            return Ok(true);
        }
        match follow(waiting, &held) {
            Followed::Same => give_back(tap, [&held.keep()]),
            Followed::Another => inspect(tap, waiting, judge, &held),
            Followed::Failed(unreadable) => {
                metrics::inspection("contradicted");
                tracing::debug!(flow = ?held.flow, %unreadable, "what follows is not what was verified: dropped");
            }
        }
        Ok(true)
    }
}

/// What the frame is to a flow that was judged: a repetition, or of a segment that came behind it; or to be read itself.
fn follow(waiting: &mut Waiting, held: &Held<'_>) -> Followed {
    let known = waiting.known(&held.flow).into_iter().flatten();
    let mut followed = known.map(|read| {
        let mut all = held.payloads().map(|payload| read.follow(held.sequence.unwrap_or(0), payload));
        let first = all.next().unwrap_or(Followed::Another);
        all.find(|next| *next != Followed::Same).unwrap_or(first)
    });
    followed.find(|followed| *followed != Followed::Another).unwrap_or(Followed::Another)
}

/// Puts the frame to those that wait, and if that is enough, has the flow judged.
fn inspect(tap: &Tap, waiting: &mut Waiting, judge: &mut dyn Judge, held: &Held<'_>) {
    let key = waiting.key(&held.flow, held.payload);
    let mut entry = waiting.take(&key).unwrap_or_else(|| Pending::new(held));
    if entry.shown.is_some() || entry.frames.len() >= FRAMES {
        // What was shown goes on as it was read, and nothing with it: this is sent again.
        if waiting.put(key, entry) == Err(Refused) {
            metrics::inspection("over-bounds");
        }
        return;
    }
    let mut progress = Progress::More;
    for payload in held.payloads() {
        progress = entry.inspection.push(held.sequence.unwrap_or(0), payload);
    }
    let shown = match progress {
        _ if held.urgent => Shown::Unreadable(Unreadable::MalformedHello),
        Progress::More => {
            entry.frames.push(held.keep());
            return match waiting.put(key, entry) {
                Ok(()) => {}
                Err(Refused) => metrics::inspection("over-bounds"),
            };
        }
        Progress::Shown(hello) => Shown::Hello(hello),
        Progress::Failed(unreadable) => Shown::Unreadable(unreadable),
    };
    entry.frames.push(held.keep());
    conclude(tap, waiting, judge, key, entry, shown);
}

fn conclude(tap: &Tap, waiting: &mut Waiting, judge: &mut dyn Judge, key: Key, mut entry: Pending, shown: Shown) {
    let (flow, now) = (key.0, now());
    let time = match entry.judged_ns {
        0 => Time::First,
        _ if now.saturating_sub(entry.since_ns) < nanoseconds(UNDECIDED) => Time::Again,
        _ => Time::Last,
    };
    let stream = entry.inspection.ends_at().zip(entry.inspection.hello());
    let outcome = judge.judge(&flow, &shown, stream.map(|(end, hello)| Stream { end, hello }), time);
    if outcome == Outcome::Later {
        entry.judged_ns = now;
        entry.shown = Some(shown);
        if waiting.put(key, entry) == Err(Refused) {
            metrics::inspection("over-bounds");
        }
        return;
    }
    metrics::inspection(outcome.word());
    match outcome {
        Outcome::Passes => give_back(tap, &entry.frames),
        // the kernel answers the first one, and lets the reset through
        Outcome::Denied => give_back(tap, entry.frames.first().into_iter().chain(&entry.reset)),
        Outcome::Refused | Outcome::Gone | Outcome::Failed | Outcome::Later => {}
    }
    metrics::hold_inspected(Duration::from_nanos(self::now().saturating_sub(entry.since_ns)));
    if outcome == Outcome::Passes {
        waiting.note(flow, entry.inspection, now);
    }
}

/// A frame that the node does not take is sent again by the workload.
fn give_back<'a>(tap: &Tap, frames: impl IntoIterator<Item = &'a Kept>) {
    for frame in frames {
        let (head, frame) = frame.parts();
        if let Err(error) = tap.write(head, frame) {
            tracing::debug!(%error, "a held frame is not taken back");
        }
    }
}

/// A flow that has not shown enough yet.
#[derive(Debug)]
struct Pending {
    inspection: Inspection,
    frames: Vec<Kept>,
    /// To the other side, if it is denied; of TCP only.
    reset: Option<Kept>,
    /// When its first frame was read, in nanoseconds of CLOCK_BOOTTIME.
    since_ns: u64,
    /// What it has shown, if it is to be judged again, and when it was last; 0: it was not.
    shown: Option<Shown>,
    judged_ns: u64,
}

impl Pending {
    fn new(held: &Held<'_>) -> Self {
        let first = held.sequence.map(|_| held.head.first);
        Self {
            inspection: if first.is_some() { Inspection::tcp(first) } else { Inspection::udp() },
            frames: Vec::new(),
            reset: first.map(|first| held.reset(first)),
            since_ns: now(),
            shown: None,
            judged_ns: 0,
        }
    }

    /// Whether it has waited long enough for whatever it waits for.
    fn is_due(&self, now: u64) -> bool {
        match self.shown {
            Some(_) => now.saturating_sub(self.judged_ns) >= nanoseconds(AGAIN),
            None => now.saturating_sub(self.since_ns) >= nanoseconds(PATIENCE),
        }
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(Kept::bytes).sum::<usize>() + self.inspection.held()
    }
}

fn now() -> u64 {
    nanoseconds(boot_time())
}

/// Until a frame waits, or that time is over.
fn wait(tap: BorrowedFd<'_>, longest: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: tap.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, longest.as_millis() as libc::c_int) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
    }
    Ok(())
}
