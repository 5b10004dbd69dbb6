//! The service namespace on a real kernel: made, kept over a daemon's death, put right, used, removed.

mod service_world;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway::service::{self, EDGE_V4, EDGE_V6, Service, ServiceError, TG0, TG1_MAC};
use gateway::sys::netns;
use service_world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[test]
fn made_as_the_design_says() {
    let world = World::new();
    let service = world.inside(|| Service::start(&world.config()).unwrap());
    let shown = world.run(&format!("ip -o link show {TG0}"));
    assert_eq!(shown.split(':').next().unwrap().parse::<u32>().unwrap(), service.tg0_ifindex(), "{shown}");
    assert!(shown.contains("NOARP") && shown.contains("UP") && shown.contains("02:74:67:00:00:00"), "{shown}");
    assert_eq!(world.run(&format!("ip -o addr show dev {TG0}")), "");

    assert_eq!(
        world.run(&format!("cat /proc/sys/net/ipv4/conf/{TG0}/forwarding /proc/sys/net/ipv6/conf/{TG0}/disable_ipv6")),
        "0\n1\n"
    );

    let inside = world.run_service("ip -o link show tg1; ip -o addr show dev tg1; ip route show table local; ip -6 route show table all; ip rule; ip -6 rule");
    for want in [
        "NOARP",
        &TG1_MAC.to_string(),
        "198.18.255.254/15 ",
        "169.254.77.1/32 ",
        "fd74:6769::ffff/64 ",
        "fe80::77/64 ",
        "local default dev lo",
        "local fe80::/64 dev tg1",
    ] {
        assert!(inside.contains(want), "`{want}` is missing in\n{inside}");
    }
    assert_eq!(inside.matches("local default dev lo").count(), 2, "one route a family\n{inside}");
    assert_eq!(inside.matches("lookup").count(), 5, "only the kernel's own rules\n{inside}");
    assert_eq!(inside.matches("inet6 ").count(), 2, "no address by itself\n{inside}");
    assert_eq!(
        world.run_service("cat /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/ip_forward | sort -u"),
        "0\n"
    );
}

#[test]
fn stopping_and_starting_again_keeps_the_device() {
    let world = World::new();
    let start = || world.inside(|| Service::start(&world.config()).unwrap());
    let first = start();
    let (index, inode) = (first.tg0_ifindex(), fs::metadata(world.held()).unwrap().ino());
    drop(first);
    let second = start();
    assert_eq!((second.tg0_ifindex(), fs::metadata(world.held()).unwrap().ino()), (index, inode));
}

/// Not a test of its own: the daemon that [`killing_the_daemon_keeps_namespace_and_sockets_can_be_bound_again`] kills.
#[test]
#[ignore = "run by another test"]
fn daemon_to_be_killed() {
    let Some(dir) = std::env::var_os("TIDEGATE_TEST_RUNTIME_DIR") else { return };
    let node = gateway::settings::Node::default();
    let config = service::Config { runtime_dir: dir.into(), handles_v4: node.handles_v4, handles_v6: node.handles_v6 };
    let service = Service::start(&config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _listener = service.spawn(TcpListener::bind("0.0.0.0:53")).await.unwrap().unwrap();
        println!("ready {}", service.tg0_ifindex());
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
}

#[test]
fn killing_the_daemon_keeps_namespace_and_sockets_can_be_bound_again() {
    let world = World::new();
    let mut daemon = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", world.name))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "daemon_to_be_killed", "--ignored", "--nocapture"])
        .env("TIDEGATE_TEST_RUNTIME_DIR", &world.dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = BufReader::new(daemon.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("ready ")?.1.to_owned()));
    let index: u32 = ready.expect("the daemon came up").trim().parse().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    let service = world.inside(|| Service::start(&world.config()).unwrap());
    assert_eq!(service.tg0_ifindex(), index);
    world.with_runtime(|| async {
        service.spawn(TcpListener::bind("0.0.0.0:53")).await.unwrap().unwrap();
        let found = service.ensure().await.unwrap();
        assert!(!found.remade && !found.mended, "{found:?}");
    });
}

#[test]
fn what_others_take_away_is_put_back() {
    let world = World::new();
    let service = world.inside(|| Service::start(&world.config()).unwrap());
    let ensure = || world.with_runtime(|| async { service.ensure().await.unwrap() });

    world.run(&format!("ip link set {TG0} down address 02:00:00:00:00:09"));
    world.run_service("ip addr del 169.254.77.1/32 dev tg1; ip addr add 203.0.113.1/24 dev tg1; ip -6 route del local ::/0 dev lo table main; echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
    let found = ensure();
    assert!(found.mended && !found.remade, "{found:?}");
    let now = world
        .run_service("ip -o addr show dev tg1; ip -6 route show table all; cat /proc/sys/net/ipv4/conf/all/rp_filter");
    assert!(
        now.contains("169.254.77.1/32")
            && !now.contains("203.0.113.1")
            && now.contains("local default dev lo")
            && now.ends_with("\n0\n"),
        "{now}"
    );
    assert!(world.run(&format!("ip link show {TG0}")).contains("02:74:67:00:00:00"));

    world.run(&format!("ip link del {TG0}"));
    let found = ensure();
    assert!(found.remade, "{found:?}");
    assert_eq!(found.tg0_ifindex, service.tg0_ifindex());
    let found = ensure();
    assert!(!found.mended, "{found:?}");
}

#[test]
fn a_foreign_device_is_left_alone() {
    let world = World::new();
    world.run(&format!("ip link add {TG0} type veth peer name other"));
    let refused = world.inside(|| Service::start(&world.config()).unwrap_err());
    assert!(matches!(refused, ServiceError::Foreign), "{refused}");
    assert!(refused.to_string().contains("ip link set tg0 name"), "{refused}");
    assert!(matches!(world.inside(|| service::remove(&world.config())), Err(ServiceError::Foreign)));
    world.run(&format!("ip link show {TG0}"));
}

#[test]
fn a_namespace_that_cannot_be_mounted_lives_with_the_thread() {
    let world = World::new();
    fs::write(world.dir.join("netns"), "a file where the folder belongs").unwrap();
    let config = service::Config { runtime_dir: world.dir.join("netns"), ..world.config() };
    let first = world.inside(|| Service::start(&config).unwrap());
    assert!(world.run(&format!("ip -o link show {TG0}")).contains("UP"));
    drop(first);
    let second = world.inside(|| Service::start(&config).unwrap());
    assert!(second.tg0_ifindex() > 0);
}

#[test]
fn the_nodes_own_namespace_is_refused() {
    let world = World::new();
    fs::create_dir_all(world.dir.join("netns")).unwrap();
    let refused = world.inside(|| {
        netns::hold(&world.held()).unwrap();
        Service::start(&world.config()).unwrap_err()
    });
    assert!(matches!(refused, ServiceError::NodesOwn { .. }), "{refused}");
}

#[test]
fn dials_workloads_from_any_source() {
    let world = World::new();
    let service = world.inside(|| Service::start(&world.config()).unwrap());
    let (v4, v6): (IpAddr, IpAddr) = ("198.18.0.10".parse().unwrap(), "fd74:6769::10".parse().unwrap());
    world.be_workload(&[v4, v6]);
    world.run(&format!("ip route add 169.254.77.1 dev {TG0}"));
    let sources: [(IpAddr, IpAddr); 4] = [
        (EDGE_V4.into(), v4),
        ("10.100.0.1".parse().unwrap(), v4),
        (EDGE_V6.into(), v6),
        ("fd00:100::1".parse().unwrap(), v6),
    ];
    world.with_runtime(|| async {
        for (source, handle) in sources {
            let listener = TcpListener::bind(SocketAddr::new(handle, 0)).await.unwrap();
            let to = listener.local_addr().unwrap();
            let (dialled, accepted) = tokio::join!(service.dial(source, to, Duration::from_secs(5)), listener.accept());
            let (mut ours, (mut theirs, from)) = (dialled.unwrap(), accepted.unwrap());
            assert_eq!(from.ip(), source);
            ours.write_all(b"through the pair").await.unwrap();
            ours.shutdown().await.unwrap();
            let mut got = String::new();
            theirs.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "through the pair");

            let closed = SocketAddr::new(handle, 9);
            let refused = service.dial(source, closed, Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        }
        let nobody = service
            .dial(EDGE_V4.into(), "198.18.0.77:1".parse().unwrap(), Duration::from_millis(200))
            .await
            .unwrap_err();
        assert_eq!(nobody.kind(), ErrorKind::TimedOut, "{nobody}");
    });
}

#[test]
fn removing_leaves_nothing() {
    let world = World::new();
    drop(world.inside(|| Service::start(&world.config()).unwrap()));
    assert!(world.held().exists());
    for _twice in 0..2 {
        world.inside(|| service::remove(&world.config())).unwrap();
        assert!(!world.held().exists());
        assert!(!world.try_run(&format!("ip link show {TG0}")).status.success());
    }
}
