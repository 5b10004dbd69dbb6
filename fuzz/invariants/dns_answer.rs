//! An answer that is edited has nothing left to take out, asks what it asked, and is read as long as it was before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::rdata::svcb::{SVCB, SvcParamKey};
use hickory_resolver::proto::rr::{RData, Record};

use super::edit::{Cuts, without};

const GLUE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

pub(crate) fn check(bytes: &[u8]) {
    for cuts in [Cuts { ech: true, glue: &[] }, Cuts { ech: false, glue: &GLUE }, Cuts { ech: true, glue: &GLUE }] {
        let Ok(Some(edited)) = without(bytes, cuts) else { continue };
        assert_eq!(without(&edited, cuts), Ok(None), "nothing is left to take out");
        assert_eq!(edited[..2], bytes[..2], "the answer to the same question");
        let (Ok(before), Ok(after)) = (Message::from_vec(bytes), Message::from_vec(&edited)) else { continue };
        assert_eq!(before.queries, after.queries);
        let all = || after.answers.iter().chain(&after.authorities).chain(&after.additionals);
        assert!(!cuts.ech || !all().any(has_ech));
        assert!(!after.metadata.authentic_data, "what was changed is not what was signed");
        let addresses = |message: &Message| message.answers.iter().filter_map(|record| record.data.ip_addr()).count();
        assert_eq!(addresses(&before), addresses(&after), "what was asked for is all there");
    }
}

fn has_ech(record: &Record) -> bool {
    let has = |data: &SVCB| data.svc_params.iter().any(|(key, _)| *key == SvcParamKey::EchConfigList);
    match &record.data {
        RData::SVCB(data) => has(data),
        RData::HTTPS(data) => has(&data.0),
        _ => false,
    }
}
