//! Tidegate's resources: text in, validated values or a full list of problems out. Pure.
//!
//! 1. [`parse`] reads a file ([`parse_all`] several): `document` makes trees that know their lines, `decode` makes
//!    [`resource`]s of them, made of the [`names`] that were checked on the way.
//! 2. [`Resources`] is the set of all resources; it remembers from which file each came.
//! 3. [`feed`] reads the files of address sets; [`prefixes`] holds what they and manifests list.
//! 4. [`check`] finds what only the whole set shows: a VLAN id used twice, a host exposed twice, a name of nothing.
//!
//! Everything that is wrong becomes a [`Problem`], which says where, what, and the mend. What a later release brings is
//! refused by name.

pub mod api;
mod check;
mod decode;
mod document;
pub mod feed;
pub mod names;
pub mod prefixes;
mod problem;
pub mod query_type;
pub mod resource;
mod set;
pub mod upstream;
mod uses;
mod wording;

pub use check::check;
pub use decode::{Parsed, from_json, parse, parse_all};
pub use prefixes::Prefixes;
pub use problem::Problem;
pub use set::{Origin, Resources};
pub use uses::{SetUse, set_uses};
