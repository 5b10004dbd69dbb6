//! What the edge says of itself: access lines and metrics of the whole test process, told apart by host or app.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to record, once a process.
pub(crate) fn start() {
    METRICS.get_or_init(|| {
        tracing_subscriber::fmt().json().with_env_filter("access=info,gateway=debug").with_writer(Lines).init();
        gateway::telemetry::metrics::start().unwrap()
    });
}

/// The access lines that contain `text`.
pub(crate) fn access(text: &str) -> Vec<serde_json::Value> {
    let lines = String::from_utf8(LINES.lock().unwrap().clone()).unwrap();
    let mine = lines.lines().filter(|line| line.contains(r#""target":"access""#) && line.contains(text));
    mine.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["fields"].clone()).collect()
}

/// Waits for an access line that contains both texts.
pub(crate) fn access_line(host: &str, text: &str) -> serde_json::Value {
    let mut found = None;
    eventually(&format!("an access line of {host} with {text}"), || {
        found = access(host).into_iter().find(|line| line.to_string().contains(text));
        found.is_some()
    });
    found.unwrap()
}

/// The value of a metric, by the text before it.
pub(crate) fn metric(name: &str) -> Option<f64> {
    let text = METRICS.get().unwrap().render();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits, at most ten seconds, until something is true.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}
