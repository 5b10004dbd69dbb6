//! `vm COMMAND`: runs a shell command as root under the second kernel, and ends with its status.

use std::process::ExitCode;
use std::time::Duration;

use integration::vm::Vm;

const DEADLINE: Duration = Duration::from_secs(480);

fn main() -> ExitCode {
    let script: Vec<String> = std::env::args().skip(1).collect();
    if script.is_empty() {
        eprintln!("usage: vm COMMAND");
        return ExitCode::from(2);
    }
    let status = Vm::find().and_then(|vm| {
        vm.run(&script.join(" "), DEADLINE, |line| println!("{line}")).map_err(|error| error.to_string())
    });
    match status {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(problem) => {
            eprintln!("vm: {problem}");
            ExitCode::FAILURE
        }
    }
}
