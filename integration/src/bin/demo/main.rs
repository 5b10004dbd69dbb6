//! `make demo`: two tenants, policies by name, an app behind TLS, shown on a real node made of network namespaces.
//!
//! 1. [`stage`] builds the world and applies `config/examples/`.
//! 2. [`lines`] says who tries what, and what is expected.
//! 3. [`table`] tries every line, asks `netctl explain` for the rule, and prints expected beside seen.
//!
//! Where the kernel lacks 8021q the tenants' segments are node-local here, and the same demo runs once more on VLANs
//! under the second kernel.

mod lines;
mod stage;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use integration::vm::Vm;
use integration::world::World;
use integration::{kernel, site};

use crate::stage::{Segments, Stage};

/// The lasting world's name.
const WORLD: &str = "demo";
const VM_DEADLINE: Duration = Duration::from_secs(480);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("it ended without a word");
        eprintln!("demo: {message}");
    }));
    let good = match words.as_slice() {
        ["up"] => up(false),
        ["up", "--keep"] => up(true),
        ["down"] => down(),
        ["local"] => show(Segments::Local, false),
        ["local", "--keep"] => show(Segments::Local, true),
        ["vlan"] => show(Segments::Vlan, false),
        // The internet's echo hosts of a world that outlives this process.
        ["echo", place] => serve_echoes(place),
        _ => {
            eprintln!("usage: demo up [--keep] | down | local [--keep] | vlan");
            return ExitCode::from(2);
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn up(keep: bool) -> bool {
    if kernel::has_vlans() {
        return show(Segments::Vlan, keep);
    }
    println!("This kernel ({}) has no 8021q: here the tenants are on node-local segments,", kernel::release());
    println!("and on VLANs 100 and 200 under the second kernel after that.\n");
    let here = show(Segments::Local, keep);
    let there = show_under_second_kernel();
    println!("\nnode-local segments: {}; VLANs under the second kernel: {}", word(here), word(there));
    here && there
}

fn word(good: bool) -> &'static str {
    if good { "as expected" } else { "NOT as expected" }
}

fn show(segments: Segments, keep: bool) -> bool {
    let stage = Stage::build(segments, if keep { World::lasting(WORLD) } else { World::new() });
    let good = table::show(&stage);
    table::show_netctl(&stage);
    if keep {
        stage.stay();
    }
    good
}

fn show_under_second_kernel() -> bool {
    println!("\nThe VLAN part runs under the second kernel now. It is emulated: this takes a minute or more.\n");
    let own = std::env::current_exe().expect("the path of this program");
    let status = Vm::find().and_then(|vm| {
        let script = format!("{} vlan", own.display());
        vm.run(&script, VM_DEADLINE, |line| println!("{line}")).map_err(|error| error.to_string())
    });
    match status {
        Ok(status) => status == 0,
        Err(problem) => {
            eprintln!("demo: second kernel: {problem}");
            false
        }
    }
}

fn down() -> bool {
    if World::remove_lasting(WORLD) {
        println!("The demo's world is removed.");
    } else {
        println!("There is no demo's world.");
    }
    true
}

/// Serves for as long as the namespace named by `place` is there.
fn serve_echoes(place: &str) -> bool {
    let _server = site::serve_echoes_in(std::path::Path::new(place));
    loop {
        std::thread::park();
    }
}
