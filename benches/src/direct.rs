//! Past the gateway: S2's client library on the same store, set as the gateway sets it.

use std::sync::Arc;

use prometheus::Registry;
use s2_sdk::{
    S2,
    append_session::{AppendSession, AppendSessionConfig},
    types::{AppendRetryPolicy, BasinName, RetryConfig, S2Config, S2Endpoints},
};
use tailwater_s2::{Endpoint, Metrics, Placement, S2Upstream, S2UpstreamConfig, Secret};

/// The gateway's own default.
const BASIN_PREFIX: &str = "tailwater";
/// A store of one's own asks for none.
const TOKEN: &str = "none";

/// A store at an address, seen as the gateway sees it.
#[derive(Debug, Clone)]
pub struct Direct {
    endpoint: String,
    placement: Placement,
}

impl Direct {
    /// The store that listens at `addr`; nothing is sent yet.
    ///
    /// # Errors
    /// Never: the prefix of its basins is one.
    pub fn at(addr: &str) -> anyhow::Result<Self> {
        Ok(Self { endpoint: format!("http://{addr}"), placement: Placement::basin_per_project(BASIN_PREFIX)? })
    }

    /// The URL that the gateway is given.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The gateway's own way to the store, which counts into `registry`: with connections of its own.
    ///
    /// # Errors
    /// When the address makes no URL, or `registry` has these metrics already.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn upstream(&self, registry: &Registry) -> anyhow::Result<S2Upstream> {
        let endpoint = Endpoint::Url(self.endpoint.clone());
        let config = S2UpstreamConfig::new(endpoint, Secret::from(TOKEN), self.placement.clone());
        Ok(S2Upstream::new(config, Arc::new(Metrics::register(registry)?))?)
    }

    /// An append session for each of these streams, by a client that repeats no append whose effect is unknown. The
    /// project's basin must be there.
    ///
    /// # Errors
    /// When a name cannot be one.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn append_sessions<'a>(
        &self,
        project: &str,
        streams: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<Vec<AppendSession>> {
        let config = S2Config::new(TOKEN)
            .with_endpoints(S2Endpoints::for_endpoint(&self.endpoint)?)
            .with_retry(RetryConfig::new().with_append_retry_policy(AppendRetryPolicy::NoSideEffects))
            // Without TLS there is nothing to verify, and loading CA roots would fail where there are none.
            .with_insecure_skip_cert_verification(true);
        let basin: BasinName = self.placement.basin(project)?.parse()?;
        let basin = S2::new(config)?.basin(basin);
        let session = |stream: &str| -> anyhow::Result<AppendSession> {
            let name = self.placement.stream(project, stream)?;
            Ok(basin.stream(name.parse()?).append_session(AppendSessionConfig::new()))
        };
        streams.into_iter().map(session).collect()
    }
}
