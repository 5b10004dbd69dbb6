//! Commands that end by themselves, and processes that a world owns.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::sys::process::{Signal, detach, send};
use crate::wait::{happens_within, patience};

const COMMAND_BOUND: Duration = Duration::from_secs(30);
const END_BOUND: Duration = Duration::from_secs(5);

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit status; 137 when a signal ended it.
    pub status: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Said {
    /// Whether it ended with 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

/// Runs a command to its end, with an empty standard input; it is killed after half a minute (stretched by
/// [`patience`]).
pub fn output(command: &mut Command) -> Said {
    output_with_input(command, "")
}

/// As [`output`], with that text on its standard input.
pub fn output_with_input(command: &mut Command, input: &str) -> Said {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let (pid, stdin, stdout, stderr) = (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (over, watch) = sync_channel::<()>(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            if watch.recv_timeout(COMMAND_BOUND * patience()) == Err(RecvTimeoutError::Timeout) {
                let _gone_already = send(pid, Signal::Kill);
            }
        });
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
        let errors = scope.spawn(|| text(stderr));
        let stdout = text(stdout);
        let stderr = errors.join().unwrap_or_default();
        let status = child.wait().unwrap_or_else(|error| panic!("{shown}: {error}")).code().unwrap_or(137);
        drop(over);
        Said { status, stdout, stderr }
    })
}

fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _cut_short = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A process that a world owns: ended when dropped, unless it is lasting.
#[derive(Debug)]
pub struct Background {
    child: Child,
    log: PathBuf,
    lasting: bool,
}

impl Background {
    /// Starts it, with both outputs appended to `log`. A lasting one gets a session of its own.
    pub fn start(command: &mut Command, log: &Path, lasting: bool) -> Self {
        let shown = format!("{command:?}");
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let errors = file.try_clone().expect("the log file twice");
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        if lasting {
            detach(command);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        Self { child, log: log.to_owned(), lasting }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal).unwrap_or_else(|error| panic!("{signal:?} to {}: {error}", self.pid()));
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(mut self) {
        self.end_now();
    }

    /// The same to one that is still looked at afterwards.
    pub fn end_now(&mut self) {
        self.signal(Signal::Kill);
        self.child.wait().expect("the end of a killed process");
    }

    /// Asks it to end (SIGTERM); answers its exit status, or `None` when it had to be killed.
    pub fn terminate(mut self) -> Option<i32> {
        self.end()
    }

    fn end(&mut self) -> Option<i32> {
        if self.is_running() {
            let _gone_already = send(self.pid(), Signal::Terminate);
        }
        let ended = happens_within(END_BOUND, || !matches!(self.child.try_wait(), Ok(None)));
        if !ended {
            let _gone_already = send(self.pid(), Signal::Kill);
        }
        let status = self.child.wait().ok()?;
        if ended { Some(status.code().unwrap_or(137)) } else { None }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.lasting {
            self.end();
        }
    }
}
