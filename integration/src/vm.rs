//! A second kernel: Debian's own, in QEMU without KVM, over this machine's file system.
//!
//! 1. [`Vm::find`] looks for the kernel, its modules and the programs, and names what is missing.
//! 2. [`Vm::run`] packs a small initial file system, shares `/` by virtiofsd, boots, hands on every line that the guest
//!    writes to its serial port, and answers the exit status.
//!
//! The guest (`integration/vm/init`) mounts the host's files read-only under a layer in memory, so nothing that a test
//! does there touches this machine. It has no network. Bounds: the deadline of each run, after which QEMU is killed.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::output;
use crate::sys::process::{Signal, send};
use crate::wait::happens_within;

const INIT: &str = include_str!("../vm/init");
const GUEST: &str = include_str!("../vm/guest");
const TRY_ONE: &str = include_str!("../vm/try-one");

/// Modules that the initial file system loads, in this order.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "fuse",
    "virtiofs",
    "overlay",
];
const MEMORY: &str = "2G";
/// Emulation is quickest with one plain processor: wide vectors and translation-buffer flushes cost most.
const PROCESSOR: &str = "Westmere";
const SHARE_BOUND: Duration = Duration::from_secs(10);

/// What can be booted.
#[derive(Clone, Debug)]
pub struct Vm {
    kernel: PathBuf,
    modules: PathBuf,
    virtiofsd: PathBuf,
    environment: Vec<(String, String)>,
}

/// How a named test ended in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It passed.
    Passed,
    /// It failed, or does not exist, or the guest ended before it.
    Failed,
    /// It skipped itself.
    Skipped,
}

impl Vm {
    /// Finds what is needed.
    ///
    /// # Errors
    /// Says what is missing; `./bootstrap vm` installs it.
    pub fn find() -> Result<Self, String> {
        let kernel = newest_kernel().ok_or("no kernel /boot/vmlinuz-*cloud* (package linux-image-cloud-amd64)")?;
        let name = kernel.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let modules = Path::new("/lib/modules").join(name.trim_start_matches("vmlinuz-"));
        let places = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];
        let virtiofsd = places.iter().map(PathBuf::from).find(|path| path.exists());
        let virtiofsd = virtiofsd.ok_or("no virtiofsd (package qemu-system-common)")?;
        for (program, package) in
            [("/usr/bin/qemu-system-x86_64", "qemu-system-x86"), ("/bin/busybox", "busybox-static")]
        {
            if !Path::new(program).exists() {
                return Err(format!("no {program} (package {package})"));
            }
        }
        if !modules.exists() {
            return Err(format!("no modules {}", modules.display()));
        }
        Ok(Self { kernel, modules, virtiofsd, environment: Vec::new() })
    }

    /// With a variable for what runs in the guest.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Boots, runs a shell script as root and answers its exit status. Every line goes to `line`.
    ///
    /// # Errors
    /// When the machine cannot be started, does not come up, or is not done by the deadline.
    pub fn run(&self, script: &str, deadline: Duration, mut line: impl FnMut(&str)) -> io::Result<i32> {
        let end = Instant::now() + deadline;
        let folder = Folder::new()?;
        self.pack(&folder.0, script)?;
        let (_share, socket) = self.share(&folder.0)?;
        let mut machine = self.boot(&folder.0, &socket)?;
        let serial = machine.0.stdout.take().ok_or_else(|| io::Error::other("the machine has no serial port"))?;
        let pid = machine.0.id();
        let (over, watch) = sync_channel::<()>(1);
        let mut status = None;
        let killed = thread::scope(|scope| {
            let guard = scope.spawn(move || {
                let late = watch.recv_timeout(end.saturating_duration_since(Instant::now()));
                late == Err(RecvTimeoutError::Timeout) && send(pid, Signal::Kill).is_ok()
            });
            for text in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&text);
                let text = text.trim_end_matches('\r');
                match text.strip_prefix("tidegate-vm: status ") {
                    Some(number) => status = number.trim().parse().ok(),
                    None if status.is_none() => line(text),
                    None => {}
                }
            }
            drop(over);
            guard.join().unwrap_or(false)
        });
        match status {
            Some(status) => Ok(status),
            None if killed => Err(io::Error::other(format!("not done within {deadline:?}; the machine was killed"))),
            None => Err(io::Error::other("the machine ended without saying how; its last lines say why")),
        }
    }

    /// Runs named tests one after the other in one boot. `limit` bounds each; `line` gets all other lines. Answers one
    /// outcome for each test, in order.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn try_tests(
        &self,
        tests: &[(PathBuf, &str)],
        limit: Duration,
        deadline: Duration,
        mut line: impl FnMut(&str),
    ) -> (Vec<Tried>, io::Result<i32>) {
        let mut script = format!("{TRY_ONE}\nlimit={}\n", limit.as_secs());
        for (program, test) in tests {
            script += &format!("try_one '{}' '{test}'\n", program.display());
        }
        let mut outcomes = Vec::new();
        let end = self.run(&script, deadline, |text| {
            match text.strip_prefix("tidegate-vm: ").and_then(|rest| rest.split(' ').next()) {
                Some("PASS") => outcomes.push(Tried::Passed),
                Some("FAIL") => outcomes.push(Tried::Failed),
                Some("SKIP") => outcomes.push(Tried::Skipped),
                _ => {}
            }
            line(text);
        });
        outcomes.resize(tests.len(), Tried::Failed);
        (outcomes, end)
    }

    fn pack(&self, folder: &Path, script: &str) -> io::Result<()> {
        let root = folder.join("initrd");
        for name in ["bin", "modules", "proc", "sys", "dev", "run", "memory", "host", "newroot"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        for module in MODULES {
            let file = find_file(&self.modules.join("kernel"), &format!("{module}.ko"));
            let file =
                file.ok_or_else(|| io::Error::other(format!("no module {module} in {}", self.modules.display())))?;
            fs::copy(file, root.join(format!("modules/{module}.ko")))?;
        }
        fs::write(root.join("modules/order"), MODULES.join("\n"))?;
        let exports: String =
            self.environment.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
        fs::write(root.join("guest"), GUEST)?;
        fs::write(root.join("script"), exports + script)?;
        fs::write(root.join("init"), INIT)?;
        let packed = "chmod 755 init && find . | cpio -o -H newc --quiet | gzip -1 > ../initrd.gz";
        let said = output(Command::new("sh").args(["-c", packed]).current_dir(&root));
        if said.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("pack the initial file system: {}", said.stderr)))
        }
    }

    fn share(&self, folder: &Path) -> io::Result<(Owned, PathBuf)> {
        let socket = folder.join("share.sock");
        let log = fs::File::create(folder.join("virtiofsd.log"))?;
        let mut command = Command::new(&self.virtiofsd);
        command.arg(format!("--socket-path={}", socket.display()));
        command.args(["-o", "source=/", "-o", "cache=auto", "-o", "sandbox=chroot"]);
        let share = Owned(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        if happens_within(SHARE_BOUND, || socket.exists()) {
            return Ok((share, socket));
        }
        Err(io::Error::other(format!("virtiofsd: {}", fs::read_to_string(folder.join("virtiofsd.log"))?)))
    }

    fn boot(&self, folder: &Path, socket: &Path) -> io::Result<Owned> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", "1", "-m", MEMORY]);
        command.arg("-object").arg(format!("memory-backend-memfd,id=mem,size={MEMORY},share=on"));
        command.args(["-numa", "node,memdev=mem"]);
        command.arg("-chardev").arg(format!("socket,id=share,path={}", socket.display()));
        command.args(["-device", "vhost-user-fs-pci,chardev=share,tag=root"]);
        command.args(["-nic", "none", "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(folder.join("initrd.gz"));
        command.args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map(Owned)
    }
}

/// A child that is killed when dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}

/// A temporary folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-vm-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone_already = fs::remove_dir_all(&self.0);
    }
}

fn newest_kernel() -> Option<PathBuf> {
    let entries = fs::read_dir("/boot").ok()?.flatten().map(|entry| entry.path());
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let kernels = entries.filter(|path| name(path).starts_with("vmlinuz-") && name(path).contains("cloud"));
    kernels.max_by_key(|path| {
        name(path).split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect::<Vec<u64>>()
    })
}

fn find_file(below: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(below).ok()?.flatten().map(|entry| entry.path());
    let mut folders = Vec::new();
    for path in entries {
        if path.is_dir() {
            folders.push(path);
        } else if path.file_name().is_some_and(|found| found == name) {
            return Some(path);
        }
    }
    folders.iter().find_map(|folder| find_file(folder, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_anywhere_below() {
        let folder = Folder::new().unwrap();
        fs::create_dir_all(folder.0.join("drivers/virtio")).unwrap();
        fs::write(folder.0.join("drivers/virtio/virtio.ko"), "").unwrap();
        assert_eq!(find_file(&folder.0, "virtio.ko"), Some(folder.0.join("drivers/virtio/virtio.ko")));
        assert_eq!(find_file(&folder.0, "overlay.ko"), None);
    }
}
