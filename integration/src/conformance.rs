//! Where the conformance cases of upstream Kubernetes lie, for the tests that have them. They are not part of this tree:
//! the folder that `TIDEGATE_NETPOL_CASES` names, or `../shared/netpol` beside the checkout.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::kernel;

/// The folder of the cases.
#[derive(Clone, Debug)]
pub struct Cases(PathBuf);

impl Cases {
    /// `None`: there are none here, and `test` is counted as skipped.
    pub fn find(test: &str) -> Option<Self> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/netpol");
        let folder = std::env::var_os("TIDEGATE_NETPOL_CASES").map_or_else(beside, PathBuf::from);
        if folder.join("cases.json").is_file() {
            return Some(Self(folder));
        }
        kernel::skip(test, "the upstream cases are not here; TIDEGATE_NETPOL_CASES names their folder");
        None
    }

    /// A file of the folder.
    pub fn read(&self, file: &str) -> Value {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
