//! The daemon's command line.

use gateway::sys::namespace_helper;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(namespace_helper::SUBCOMMAND) {
        namespace_helper::run(namespace_helper::DESCRIPTOR);
    }
}
