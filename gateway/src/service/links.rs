//! `tg0` and `tg1`: found, made, put right, deleted, by netlink on both sides.
//!
//! Names and MACs are fixed. A `tg0` is ours by kind and MAC (or by alias, should somebody have changed the MAC), and the
//! pair is whole when each end names the other as its peer; a half or foreign-peered pair is deleted and made anew.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use futures_util::TryStreamExt;
use tracing::{info, warn};

use super::addresses::Inside;
use super::namespace::Sides;
use super::{Config, ServiceError};
use crate::sys::netlink::raw::{
    self, AfSpecInet6, AfSpecUnspec, Handle, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage, LinkMessageBuilder, LinkUnspec, LinkVeth, io_error,
};
use crate::sys::netns::Netns;
use crate::workload::Mac;

/// The node's end.
pub const TG0: &str = "tg0";
/// The end in the service namespace.
pub const TG1: &str = "tg1";
/// The MAC of [`TG0`], locally administered.
pub const TG0_MAC: Mac = Mac([0x02, 0x74, 0x67, 0, 0, 0]);
/// The MAC of [`TG1`].
pub const TG1_MAC: Mac = Mac([0x02, 0x74, 0x67, 0, 0, 1]);
const ALIAS: &str = "tidegate service namespace";

/// What [`super::Service::ensure`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ensured {
    /// The index of `tg0` in the node's namespace.
    pub tg0_ifindex: u32,
    /// The pair was made: what was attached to an earlier `tg0` is gone.
    pub remade: bool,
    /// Anything at all was not as it should be, and is now.
    pub mended: bool,
}

/// Both ends and how to reach them.
#[derive(Debug)]
pub(super) struct Links {
    node: Netlink,
    inside: Netlink,
    namespace: Netns,
    settings: Inside,
}

/// Requests to one namespace.
#[derive(Debug)]
pub(super) struct Netlink(pub(super) Handle);

struct Found {
    index: u32,
    peer: Option<u32>,
    mac: Option<Mac>,
    ours: bool,
    settled: bool,
}

impl Links {
    pub(super) fn new(config: &Config, sides: Sides) -> Result<Self, ServiceError> {
        Ok(Self { node: sides.node, inside: sides.inside, namespace: sides.namespace, settings: Inside::new(config) })
    }

    pub(super) async fn ensure(&mut self) -> Result<Ensured, ServiceError> {
        let (mut tg0, mut tg1) = (self.node.find(TG0).await?, self.inside.find(TG1).await?);
        if tg0.as_ref().is_some_and(|tg0| !tg0.ours) {
            return Err(ServiceError::Foreign);
        }
        let whole = |tg0: &Option<Found>, tg1: &Option<Found>| match (tg0, tg1) {
            (Some(tg0), Some(tg1)) => tg0.peer == Some(tg1.index) && tg1.peer == Some(tg0.index),
            (None, _) | (_, None) => false,
        };
        let remade = !whole(&tg0, &tg1);
        if remade {
            self.make(tg0.is_some(), tg1).await?;
            (tg0, tg1) = (self.node.find(TG0).await?, self.inside.find(TG1).await?);
            info!("made the pair {TG0}/{TG1} of the service namespace");
        }
        let (Some(tg0), Some(tg1)) = (tg0, tg1) else {
            return Err(ServiceError::Netlink {
                doing: "find tg0 and tg1 just made",
                source: io::ErrorKind::NotFound.into(),
            });
        };
        let mut mended = remade;
        mended |= self.node.settle(&tg0, TG0_MAC, self.settings.ipv6()).await?;
        mended |= self.inside.settle(&tg1, TG1_MAC, self.settings.ipv6()).await?;
        mended |= self.settings.apply(&self.inside, tg1.index).await?;
        if mended && !remade {
            warn!("the service namespace was not as the gateway had left it; put right");
        }
        Ok(Ensured { tg0_ifindex: tg0.index, remade, mended })
    }

    async fn make(&self, stale: bool, tg1: Option<Found>) -> Result<(), ServiceError> {
        if stale {
            self.node.delete(TG0).await?;
        }
        if tg1.is_some() {
            self.inside.delete(TG1).await?;
        }
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(TG1)
            .address(TG1_MAC.0.to_vec())
            .arp(false)
            .setns_by_fd(self.namespace.as_fd().as_raw_fd())
            .build();
        let pair = LinkVeth::new(TG0, TG1)
            .address(TG0_MAC.0.to_vec())
            .arp(false)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.node.0.link().add(pair).execute().await.map_err(failed("make the veth pair tg0/tg1"))
    }
}

/// Deletes the pair by its node's end, if it is there and ours.
pub(super) async fn delete(node: &Netlink) -> Result<(), ServiceError> {
    match node.find(TG0).await? {
        Some(tg0) if tg0.ours => node.delete(TG0).await,
        Some(_) => Err(ServiceError::Foreign),
        None => Ok(()),
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace; its connection is driven by the current runtime.
    pub(super) fn open() -> Result<Self, ServiceError> {
        raw::open().map(Self).map_err(|source| ServiceError::Netlink { doing: "open a netlink socket", source })
    }

    async fn find(&self, name: &str) -> Result<Option<Found>, ServiceError> {
        match self.0.link().get().match_name(name).execute().try_next().await {
            Ok(found) => Ok(found.as_ref().map(Found::new)),
            Err(error) => match io_error(error) {
                absent if absent.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                source => Err(ServiceError::Netlink { doing: "look for tg0 and tg1", source }),
            },
        }
    }

    async fn delete(&self, name: &str) -> Result<(), ServiceError> {
        let Some(found) = self.find(name).await? else { return Ok(()) };
        match self.0.link().del(found.index).execute().await.map_err(io_error) {
            Err(gone) if gone.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other.map_err(|source| ServiceError::Netlink { doing: "delete a stale tg0 or tg1", source }),
        }
    }

    /// Gives one end its MAC, alias and flags and sets it up; false if it had them all.
    async fn settle(&self, found: &Found, mac: Mac, ipv6: bool) -> Result<bool, ServiceError> {
        if found.settled && found.mac == Some(mac) {
            return Ok(false);
        }
        let mut named = LinkUnspec::new_with_index(found.index).alias(ALIAS).address(mac.0.to_vec()).arp(false);
        if ipv6 {
            let unnumbered = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
            named = named.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![unnumbered]));
        }
        self.0.link().set(named.build()).execute().await.map_err(failed("set up tg0 and tg1"))?;
        self.up(found.index).await?;
        Ok(true)
    }

    pub(super) async fn up(&self, index: u32) -> Result<(), ServiceError> {
        self.0
            .link()
            .set(LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await
            .map_err(failed("bring a link up"))
    }
}

impl Found {
    fn new(link: &LinkMessage) -> Self {
        let (mut peer, mut mac, mut alias, mut veth) = (None, None, None, false);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Link(index) => peer = Some(*index),
                LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
                LinkAttribute::IfAlias(text) => alias = Some(text.as_str()),
                LinkAttribute::LinkInfo(infos) => veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
                _ => {}
            }
        }
        let named = alias == Some(ALIAS);
        let flags = link.header.flags;
        Self {
            index: link.header.index,
            peer,
            mac,
            ours: veth && (named || mac == Some(TG0_MAC)),
            settled: named && flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::Noarp),
        }
    }
}

pub(super) fn failed(doing: &'static str) -> impl FnOnce(raw::Error) -> ServiceError {
    move |error| ServiceError::Netlink { doing, source: io_error(error) }
}
