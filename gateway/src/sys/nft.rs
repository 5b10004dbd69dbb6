//! nf_tables through the `nft` program: one ruleset a call, taken whole or not at all by the kernel.
//!
//! Each call runs on a thread of its own (the program is waited for there), in the network namespace of the calling
//! thread; at most one at a time. A call that is not done after [`DEADLINE`] is an error, and the next one is refused
//! while it is still at work, so that no more than one thread can ever hang.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rtnetlink::packet_core::NLM_F_REQUEST;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::sync::{Mutex, oneshot};

/// How long `nft` may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Why a ruleset was not taken or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program does not run.
    #[error("cannot run `nft`: {0}; install the package nftables")]
    Start(io::Error),
    /// The program or the kernel said no.
    #[error("nft refused to {doing}: {text}; does the kernel have nf_tables with nat and masquerade?")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Its words.
        text: String,
    },
    /// No answer in time.
    #[error("nft did not {0} within {DEADLINE:?}; is another program holding nf_tables?")]
    Late(&'static str),
}

/// The one door to nf_tables.
#[derive(Clone, Debug, Default)]
pub struct Nft {
    turn: Arc<Mutex<()>>,
}

impl Nft {
    /// Loads a ruleset in one transaction.
    pub async fn load(&self, ruleset: String) -> Result<(), NftError> {
        const DOING: &str = "load the ruleset";
        let output = self.run(DOING, vec!["-f", "-"], ruleset).await?;
        if output.status.success() { Ok(()) } else { Err(refused(DOING, &output)) }
    }

    /// A table as `nft` prints it, without counters; `None` if there is none.
    pub async fn list(&self, family: &'static str, table: &'static str) -> Result<Option<String>, NftError> {
        const DOING: &str = "list the table";
        let output = self.run(DOING, vec!["-s", "list", "table", family, table], String::new()).await?;
        if output.status.success() {
            return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
        }
        let absent = String::from_utf8_lossy(&output.stderr).contains("No such file or directory");
        if absent { Ok(None) } else { Err(refused(DOING, &output)) }
    }

    /// The number of the last change of any table in the calling thread's network namespace; the kernel answers at
    /// once. `None` where it does not say.
    pub fn generation(&self) -> Option<u32> {
        let socket = Socket::new(NETLINK_NETFILTER).ok()?;
        socket.send_to(&generation_request(), &SocketAddr::new(0, 0), 0).ok()?;
        let (answer, _) = socket.recv_from_full().ok()?;
        generation_in(&answer)
    }

    async fn run(&self, doing: &'static str, arguments: Vec<&'static str>, input: String) -> Result<Output, NftError> {
        let late = |_| NftError::Late(doing);
        let turn = tokio::time::timeout(DEADLINE, Arc::clone(&self.turn).lock_owned()).await.map_err(late)?;
        let (done, answer) = oneshot::channel();
        let work = move || {
            let _ = done.send(run(&arguments, &input));
            drop(turn);
        };
        std::thread::Builder::new().name("nft".to_owned()).spawn(work).map_err(NftError::Start)?;
        match tokio::time::timeout(DEADLINE, answer).await.map_err(late)? {
            Ok(output) => output.map_err(NftError::Start),
            Err(_) => Err(NftError::Start(io::Error::other("its thread ended early"))),
        }
    }
}

fn run(arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut command = Command::new("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It has read enough to refuse; its own words say more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
    }
    child.wait_with_output()
}

/// `NFT_MSG_GETGEN` (`linux/netfilter/nf_tables.h`) behind the headers of netlink and nfnetlink.
fn generation_request() -> [u8; 20] {
    let mut request = [0; 20];
    request[0..4].copy_from_slice(&20u32.to_ne_bytes());
    request[4..6].copy_from_slice(&(SUBSYSTEM_NFTABLES | 16).to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request
}

const SUBSYSTEM_NFTABLES: u16 = 10 << 8;

/// `NFTA_GEN_ID`, the first attribute of `NFT_MSG_NEWGEN`.
fn generation_in(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let attribute = u16::from_ne_bytes(answer.get(22..24)?.try_into().ok()?);
    let number = u32::from_be_bytes(answer.get(24..28)?.try_into().ok()?);
    (kind == SUBSYSTEM_NFTABLES | 15 && attribute == 1).then_some(number)
}

fn refused(doing: &'static str, output: &Output) -> NftError {
    let text = String::from_utf8_lossy(&output.stderr);
    NftError::Refused { doing, text: text.lines().take(3).collect::<Vec<_>>().join(" ").trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_moves_the_generation_on() {
        let work = || {
            crate::sys::netns::unshare().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let nft = Nft::default();
                let before = nft.generation().unwrap();
                assert_eq!(nft.list("inet", "one").await.unwrap(), None);
                assert_eq!(nft.generation(), Some(before));
                nft.load("table inet one {}\n".to_owned()).await.unwrap();
                assert_ne!(nft.generation(), Some(before));
                assert!(nft.list("inet", "one").await.unwrap().unwrap().contains("table inet one"));
                let refused = nft.load("table inet two { nonsense }\n".to_owned()).await.unwrap_err();
                assert!(matches!(refused, NftError::Refused { .. }), "{refused}");
                assert_eq!(nft.list("inet", "two").await.unwrap(), None);
            });
        };
        std::thread::spawn(work).join().unwrap();
    }
}
