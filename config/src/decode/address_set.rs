//! `kind: AddressSet`

use super::{files, rules};
use crate::document::field::Field;
use crate::names::Name;
use crate::resource::{AddressSet, SetSource};

pub(super) fn read(namespace: Option<Name>, name: Option<Name>, spec: &Field<'_>) -> Option<AddressSet> {
    let fields = spec.fields(&["cidrs", "file"], &[])?;
    let source = match (fields.has("cidrs"), fields.has("file")) {
        (true, true) => {
            spec.problem("the set has both `cidrs` and `file`", "keep the one that the prefixes shall come from");
            None
        }
        (true, false) => {
            let items = fields.optional("cidrs").and_then(|field| field.items());
            items.and_then(|items| rules::prefixes(&items)).map(|all| SetSource::Cidrs(all.into_iter().collect()))
        }
        (false, true) => fields.optional("file").and_then(|field| files::name(&field, "feed.txt")).map(SetSource::File),
        (false, false) => {
            let mend = "write `cidrs: [ … ]`, or `file: feed.txt` with a prefix or address a line; an empty set is `cidrs: []`";
            spec.problem("the set does not say where its prefixes come from", mend);
            None
        }
    };
    Some(AddressSet { namespace, name: name?, source: source? })
}
