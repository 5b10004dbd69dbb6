//! Ways round a policy that are known from elsewhere, each through the real daemon with real packets. Beside each trick
//! goes the same without the trick, which arrives. Played addresses and servers are in `spoofing`.

use std::net::IpAddr;
use std::time::Duration;

use integration::capture::Capture;
use integration::frame::{Mac, ethernet};
use integration::manifests::{allow_cidrs, policy, two_tenants};
use integration::site::ECHO;
use integration::{Pod, Site};

mod addresses;
mod nat;
mod races;
mod recipe;
mod shapes;

pub(crate) const BRIEF: Duration = Duration::from_millis(400);
pub(crate) const ECHO_PORT: u16 = 7;

pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) web: Pod,
    pub(crate) gateway: Mac,
}

/// One workload, whose policy has these lines.
pub(crate) fn stage(rules: &str) -> Stage {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &policy("shop", "rules", rules)));
    let web = site.attach("shop", "web-1", &[]);
    let bridge = site.node.ip_json("link show dev tgb-tenant-a");
    let gateway = bridge[0]["address"].as_str().and_then(|text| text.parse().ok()).expect("the bridge's MAC");
    Stage { site, web, gateway }
}

pub(crate) fn everything() -> String {
    allow_cidrs(&["0.0.0.0/0", "::/0"], "")
}

pub(crate) fn only_echo(ports: &str) -> String {
    allow_cidrs(&[&format!("{}/32", ECHO.v4()), &format!("{}/128", ECHO.v6())], ports)
}

impl Stage {
    pub(crate) fn outside(&self) -> Capture {
        Capture::start(&self.site.internet.namespace, "eth0")
    }

    /// Own and far address, for each family.
    pub(crate) fn ways(&self) -> [(IpAddr, IpAddr); 2] {
        [(self.web.v4.into(), ECHO.v4()), (self.web.v6.into(), ECHO.v6())]
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        let kind = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        self.web.send_frame(Pod::INTERFACE, &ethernet(self.gateway, self.web.mac, kind, packet));
    }
}
