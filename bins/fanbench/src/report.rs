//! What a run has shown: as JSON with stable names, and as a table for people.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde::Serialize;

use crate::{figures::Percentiles, process::Memory};

/// Everything that was measured. The names of the fields are documented in `--help`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) command: &'static str,
    pub(crate) version: &'static str,
    pub(crate) settings: serde_json::Value,
    /// Whether every check held.
    pub(crate) ok: bool,
    pub(crate) failures_total: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) connect: Option<Connect>,
    pub(crate) refusals: BTreeMap<u16, u64>,
    pub(crate) connect_errors: u64,
    /// Connections of this machine that found a listener's queue full during the run.
    pub(crate) listen_overflows: u64,
    pub(crate) rotations: u64,
    pub(crate) cut: u64,
    pub(crate) churned: u64,
    pub(crate) appends: Option<Appends>,
    pub(crate) deliveries: Option<Deliveries>,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) memory: Vec<MemoryAt>,
    pub(crate) stallers: Vec<Staller>,
    pub(crate) counters: Vec<Counter>,
    pub(crate) replays: Option<Replays>,
    pub(crate) storms: Vec<Storm>,
    pub(crate) slope: Option<Slope>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Connect {
    /// Until all readers had an answer.
    pub(crate) all_ms: u64,
    pub(crate) latency: Percentiles,
}

#[derive(Debug, Serialize)]
pub(crate) struct Appends {
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) late: u64,
    pub(crate) latency: Percentiles,
}

#[derive(Debug, Serialize)]
pub(crate) struct Deliveries {
    pub(crate) total: u64,
    pub(crate) measured: u64,
    pub(crate) per_second: f64,
    pub(crate) before_ack: u64,
    pub(crate) publish_to_receive: Percentiles,
    pub(crate) ack_to_receive: Percentiles,
    pub(crate) last_reader: Percentiles,
    pub(crate) ack_to_last_reader: Percentiles,
}

/// CPU over the measured window, up to the last delivery of it.
#[derive(Debug, Serialize)]
pub(crate) struct Cpu {
    pub(crate) window_ms: u64,
    pub(crate) deliveries: u64,
    /// `None` without `--pid`, and where nothing was delivered.
    pub(crate) server_ms: Option<f64>,
    pub(crate) client_ms: f64,
    pub(crate) server_us_per_delivery: Option<f64>,
    pub(crate) client_us_per_delivery: Option<f64>,
}

/// Memory of the server's processes, in bytes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MemoryAt {
    pub(crate) at: String,
    pub(crate) readers: usize,
    pub(crate) rss_anon: u64,
    pub(crate) anonymous: u64,
    /// Of all TCP sockets of the machine, in the kernel.
    pub(crate) sockets: u64,
    pub(crate) processes: Vec<Memory>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Staller {
    pub(crate) index: usize,
    /// From the request to the server's ending the connection, where that could be seen from this side.
    pub(crate) closed_after_ms: Option<u64>,
    /// Whether the server's end was still established when the run ended. A server that closes in the ordinary way
    /// cannot tell a client that does not read, so only this shows it.
    pub(crate) server_end_open: bool,
}

/// A counter of the server's own.
#[derive(Debug, Serialize)]
pub(crate) struct Counter {
    pub(crate) series: String,
    /// When the readers had joined and no staller had. `None`: there was no such series, as of what has not happened yet.
    pub(crate) before: Option<f64>,
    /// When the readers leave.
    pub(crate) after: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Replays {
    pub(crate) clients: usize,
    pub(crate) finished: usize,
    /// Bytes of bodies, of all clients.
    pub(crate) bytes: u64,
    /// From the first client's start to the last one's end.
    pub(crate) elapsed_ms: u64,
    pub(crate) mib_per_second: f64,
    pub(crate) time: Percentiles,
}

#[derive(Debug, Serialize)]
pub(crate) struct Storm {
    pub(crate) readers: usize,
    /// `None`: not all were back in time, or there was none.
    pub(crate) all_back_ms: Option<u64>,
    pub(crate) back: Percentiles,
}

/// Memory per reader between two steps, in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Slope {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) bytes_per_reader: f64,
    pub(crate) kernel_bytes_per_reader: f64,
    /// Memory after all have left, in proportion to that before any came.
    pub(crate) after_ratio: f64,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(command: &'static str, settings: serde_json::Value) -> Self {
        Self {
            command,
            version: env!("CARGO_PKG_VERSION"),
            settings,
            ok: false,
            failures_total: 0,
            failures: Vec::new(),
            connect: None,
            refusals: BTreeMap::new(),
            connect_errors: 0,
            listen_overflows: 0,
            rotations: 0,
            cut: 0,
            churned: 0,
            appends: None,
            deliveries: None,
            cpu: None,
            memory: Vec::new(),
            stallers: Vec::new(),
            counters: Vec::new(),
            replays: None,
            storms: Vec::new(),
            slope: None,
        }
    }

    fn latencies(&self) -> Vec<(&'static str, &Percentiles)> {
        let mut rows = Vec::new();
        if let Some(connect) = &self.connect {
            rows.push(("connect", &connect.latency));
        }
        if let Some(appends) = &self.appends {
            rows.push(("append ack", &appends.latency));
        }
        if let Some(deliveries) = &self.deliveries {
            rows.push(("ack to receive", &deliveries.ack_to_receive));
            rows.push(("publish to receive", &deliveries.publish_to_receive));
            rows.push(("publish to last reader", &deliveries.last_reader));
            rows.push(("ack to last reader", &deliveries.ack_to_last_reader));
        }
        rows.extend(self.storms.iter().map(|storm| ("back after storm", &storm.back)));
        rows.extend(self.replays.iter().map(|replays| ("replay", &replays.time)));
        rows.retain(|(_, latency)| latency.count > 0);
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        if let Some(appends) = &self.appends {
            rows.push(("appends", format!("{} sent, {} acked, {} late", appends.sent, appends.acked, appends.late)));
        }
        if let Some(deliveries) = &self.deliveries {
            let Deliveries { total, measured, per_second, before_ack, .. } = deliveries;
            let text =
                format!("{total}, measured {measured}, {per_second:.0}/s, {before_ack} before their ack was read");
            rows.push(("deliveries", text));
        }
        if let Some(cpu) = &self.cpu {
            let text = |ms: f64, each: Option<f64>| match each {
                Some(each) => format!("{ms:.0} ms, {each:.2} us per delivery"),
                None => format!("{ms:.0} ms"),
            };
            rows.extend(cpu.server_ms.map(|ms| ("server CPU", text(ms, cpu.server_us_per_delivery))));
            rows.push(("client CPU", text(cpu.client_ms, cpu.client_us_per_delivery)));
        }
        for memory in &self.memory {
            let MemoryAt { at, readers, rss_anon, anonymous, sockets, .. } = memory;
            let [rss_anon, anonymous, sockets] = [rss_anon, anonymous, sockets].map(|bytes| *bytes as f64 / 1048576.0);
            let text = format!(
                "{at}, {readers} readers: RssAnon {rss_anon:.2} MiB, Anonymous {anonymous:.2} MiB, sockets {sockets:.2} MiB"
            );
            rows.push(("memory", text));
        }
        if let Some(slope) = &self.slope {
            let Slope { from, to, bytes_per_reader, kernel_bytes_per_reader, after_ratio } = slope;
            let text = format!(
                "{bytes_per_reader:.0} bytes per reader from {from} to {to} ({kernel_bytes_per_reader:.0} in the kernel, both \
                 ends), {after_ratio:.2} of the start after all have left"
            );
            rows.push(("slope", text));
        }
        self.write_events(&mut rows);
        writeln!(f, "fanbench {}: {}", self.command, if self.ok { "every check held" } else { "FAILED" })?;
        self.write_latencies(f)?;
        rows.iter().try_for_each(|(name, text)| writeln!(f, "{name:<24}{text}"))?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "FAILED  {failure}"))?;
        let untold = self.failures_total.saturating_sub(self.failures.len() as u64);
        if untold > 0 { writeln!(f, "FAILED  and {untold} more") } else { Ok(()) }
    }
}

impl Report {
    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latencies = self.latencies();
        if latencies.is_empty() {
            return Ok(());
        }
        writeln!(f, "{:<24}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}", "ms", "count", "p50", "p90", "p99", "p99.9", "max")?;
        for (name, latency) in latencies {
            let Percentiles { count, p50_us, p90_us, p99_us, p999_us, max_us, .. } = latency;
            write!(f, "{name:<24}{count:>10}")?;
            for value in [p50_us, p90_us, p99_us, p999_us, max_us] {
                write!(f, "{:>10.2}", *value as f64 / 1000.0)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_events(&self, rows: &mut Vec<(&'static str, String)>) {
        if let Some(connect) = &self.connect {
            rows.push(("connected", format!("all after {} ms", connect.all_ms)));
        }
        for storm in &self.storms {
            let text = match storm.all_back_ms {
                Some(ms) => format!("{} readers, all back after {ms} ms", storm.readers),
                None => format!("{} readers, not all back in time", storm.readers),
            };
            rows.push(("storm", text));
        }
        if let Some(replays) = &self.replays {
            let Replays { clients, finished, bytes, elapsed_ms, mib_per_second, .. } = replays;
            let text = format!("{finished} of {clients}, {bytes} bytes in {elapsed_ms} ms, {mib_per_second:.1} MiB/s");
            rows.push(("replays", text));
        }
        if !self.stallers.is_empty() {
            let seen = self.stallers.iter().filter(|staller| staller.closed_after_ms.is_some()).count();
            let open = self.stallers.iter().filter(|staller| staller.server_end_open).count();
            let text =
                format!("{} in all, {seen} seen to be closed, {open} still open at the server", self.stallers.len());
            rows.push(("stallers", text));
        }
        for Counter { series, before, after } in &self.counters {
            let text = match after {
                Some(after) => format!("{series} from {} to {after}", before.unwrap_or(0.0)),
                None => format!("{series} is not among the server's metrics"),
            };
            rows.push(("counter", text));
        }
        let mut refusals = String::new();
        for (status, count) in &self.refusals {
            write!(refusals, "{status}: {count}, ").expect("a string takes everything");
        }
        let Self { connect_errors, listen_overflows, .. } = self;
        let failed =
            format!("connections that failed: {connect_errors}, that found the queue full: {listen_overflows}");
        rows.push(("refusals", refusals + &failed));
        rows.push((
            "responses ended",
            format!("{} properly, {} cut, {} by leaving", self.rotations, self.cut, self.churned),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Latencies;

    #[test]
    fn the_table_tells_figures_and_failures() {
        let mut latencies = Latencies::new();
        latencies.record(0, 1_500_000);
        let mut report = Report::new("run", serde_json::json!({}));
        report.appends = Some(Appends { sent: 3, acked: 3, late: 1, latency: latencies.percentiles() });
        report.failures = vec!["reader 4 of stream 0: gap: expected message 1, got 2".to_owned()];
        report.failures_total = 7;
        report.refusals.insert(503, 2);
        let text = report.to_string();
        for part in [
            "fanbench run: FAILED",
            "append ack                       1      1.50",
            "3 sent, 3 acked, 1 late",
            "503: 2, ",
            "FAILED  reader 4 of stream 0: gap",
            "FAILED  and 6 more",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        report.ok = true;
        assert!(report.to_string().starts_with("fanbench run: every check held"));
    }
}
