//! `-f FILE|DIR|-` to texts. A folder gives its `*.yaml`, `*.yml` and `*.json`, by name, without those in folders below.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use config::api::{File, MAX_BODY};

use crate::failure::Failure;

/// Reads all of them, at most [`MAX_BODY`] bytes each.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(text("stdin".to_owned(), io::stdin().lock())?);
        } else if path.is_dir() {
            for path in folder(path)? {
                files.push(file(&path)?);
            }
        } else {
            files.push(file(path)?);
        }
    }
    Ok(files)
}

fn folder(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::refused(format!("reading {}: {error}", path.display()), "see whether it may be read");
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let manifest = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|wanted| end == *wanted));
        if manifest && path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Failure::refused(
            format!("{} has no manifest", path.display()),
            "manifests end in .yaml, .yml or .json",
        ));
    }
    found.sort();
    Ok(found)
}

fn file(path: &Path) -> Result<File, Failure> {
    let name = path.display().to_string();
    match fs::File::open(path) {
        Ok(file) => text(name, file),
        Err(error) => {
            Err(Failure::refused(format!("reading {name}: {error}"), "name a manifest, a folder of them, or -"))
        }
    }
}

fn text(name: String, source: impl Read) -> Result<File, Failure> {
    let mut bytes = Vec::new();
    let failed = |error: io::Error| {
        Failure::refused(format!("reading {name}: {error}"), "name a manifest, a folder of them, or -")
    };
    source.take(MAX_BODY as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_BODY {
        return Err(Failure::refused(format!("{name} is larger than {MAX_BODY} bytes"), "apply it in parts"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(File { name, text }),
        Err(_) => Err(Failure::refused(format!("{name} is not UTF-8"), "manifests are YAML or JSON in UTF-8")),
    }
}
