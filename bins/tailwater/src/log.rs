//! What is logged, and where: standard error, as far as the filter lets it through.
//!
//! The libraries that take requests apart show what they find at the level `trace`, tokens included. Whoever asks for
//! everything does not mean that, so of these libraries `debug` is the most, unless the filter names them.
//!
//! What clients have chosen stands in events, as the names of streams do. It is written so that an event is one line
//! whatever it holds ([`lines`](crate::lines)).

use std::{error::Error, io};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{FilterExt as _, Targets},
    fmt,
    layer::{Filter, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use crate::{config::Log, lines::Lines, settings::LogFormat};

/// What sees requests as they come, and sends others with credentials of our own.
const ON_THE_WIRE: [&str; 6] = ["h2", "hyper", "hyper_util", "reqwest", "rustls", "tokio_rustls"];

/// Starts to log.
pub(crate) fn start(log: &Log) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter = filter(&log.filter)?;
    let ansi = log.format == LogFormat::Text && io::IsTerminal::is_terminal(&io::stderr());
    let layer = fmt::layer().with_writer(move || Lines::new(io::stderr(), ansi));
    match log.format {
        LogFormat::Text => tracing_subscriber::registry().with(layer.with_ansi(ansi).with_filter(filter)).try_init()?,
        LogFormat::Json => tracing_subscriber::registry().with(layer.json().with_filter(filter)).try_init()?,
    }
    Ok(())
}

fn filter(text: &str) -> Result<impl Filter<Registry> + use<>, Box<dyn Error + Send + Sync>> {
    let capped = ON_THE_WIRE.into_iter().filter(|target| !names(text, target));
    let cap = capped.fold(Targets::new().with_default(LevelFilter::TRACE), |cap, target| {
        cap.with_target(target, LevelFilter::DEBUG)
    });
    Ok(EnvFilter::try_new(text)?.and(cap))
}

/// Whether a filter has a directive for this target, or for a part of it.
fn names(filter: &str, target: &str) -> bool {
    let of = |directive: &str| directive.split(['=', '[']).next().unwrap_or_default().trim().to_owned();
    filter.split(',').map(of).any(|named| named.split("::").next() == Some(target))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where a log is written that is looked at.
    #[derive(Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(filtered: &str) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(filtered).unwrap()));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!(target: "tailwater_server::requests", "request");
            let _entered = span.enter();
            tracing::trace!(target: "h2::hpack::decoder", "a header");
            tracing::debug!(target: "h2::codec", "a frame");
            tracing::trace!(target: "hyper::proto", "bytes");
            tracing::trace!(target: "tailwater_fanout::stream", "a record");
        });
        written.text()
    }

    #[test]
    fn who_asks_for_everything_is_not_shown_requests_as_they_come() {
        for filter in ["trace", "info,[request]=trace", "h=trace,trace", "tailwater_s2=info,trace"] {
            let log = logged(filter);
            assert!(log.contains("a record") && !log.contains("a header") && !log.contains("bytes"), "{filter} {log}");
        }
        assert!(logged("trace").contains("a frame"));
        assert!(!logged("info").contains("a frame"), "the cap asks for nothing");
        for filter in ["trace,h2=trace", "info,h2::hpack=trace"] {
            let log = logged(filter);
            assert!(log.contains("a header") && !log.contains("bytes"), "{filter} {log}");
        }
    }
}
