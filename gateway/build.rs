//! Builds the kernel programs (`bpf/tidegate.bpf.c`) with clang, for `include_bytes!` in `egress`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");

    let clang = clang().unwrap_or_else(|| {
        panic!("no clang that builds BPF; install one (Debian: `apt-get install clang libbpf-dev`) or name it in CLANG")
    });
    let object = out.join("tidegate.bpf.o");
    let mut command = Command::new(&clang);
    command.args(["-g", "-O2", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]);
    command.args(["-target", target(), "-c", "bpf/tidegate.bpf.c", "-o"]).arg(&object);
    if let Some(headers) = asm_headers() {
        command.arg("-I").arg(headers);
    }
    let output = command.output().unwrap_or_else(|e| panic!("`{clang}` does not run: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "`{clang}` cannot build bpf/tidegate.bpf.c; if a header is missing, install `libbpf-dev` and `linux-libc-dev`:\n{said}"
    );
    assert!(fs::metadata(&object).is_ok(), "`{clang}` wrote no object");
}

/// `$CLANG`, `clang`, or the newest versioned one, whichever runs first.
fn clang() -> Option<String> {
    let versioned = (14..=30).rev().map(|version| format!("clang-{version}"));
    let names = env::var("CLANG").into_iter().chain(["clang".to_owned()]).chain(versioned);
    names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success()))
}

/// Maps and packets have the byte order of the machine that runs the programs.
fn target() -> &'static str {
    match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    }
}

/// Debian keeps `asm/types.h` in a folder named after the machine; elsewhere clang finds it by itself.
fn asm_headers() -> Option<PathBuf> {
    let machine = env::var("CARGO_CFG_TARGET_ARCH").ok()?;
    let folder = Path::new("/usr/include").join(format!("{machine}-linux-gnu"));
    folder.join("asm/types.h").exists().then_some(folder)
}
