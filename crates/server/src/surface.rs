//! What is served at which listeners: streams at those that clients reach, and what is for whoever runs the gateway at one
//! of its own, so that a firewall can tell them apart.
//!
//! | | streams, tickets | probes | metrics, administration | profiles |
//! |---|---|---|---|---|
//! | [`Surface::All`] | yes | yes | yes | |
//! | [`Surface::Streams`] | yes | yes | | |
//! | [`Surface::Operations`] | | yes | yes | yes |
//!
//! What is not served somewhere does not exist there: it is answered and counted as any other path is that nobody has
//! heard of.

use tokio::net::TcpListener;

use crate::metrics::Route;

/// What is served at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Surface {
    /// Everything but profiles: where nobody but the machine itself is reached.
    #[default]
    All,
    /// Streams and probes.
    Streams,
    /// Probes, metrics, the administration, and profiles.
    Operations,
}

/// The listeners of a server.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For clients: as [`Config::surface`](crate::Config::surface) says.
    pub public: Vec<TcpListener>,
    /// For whoever runs the gateway: [`Surface::Operations`].
    pub operations: Option<TcpListener>,
}

impl Surface {
    pub(crate) const fn serves(self, route: Route) -> bool {
        match route {
            Route::Health | Route::Ready => true,
            Route::Metrics | Route::Admin => !matches!(self, Self::Streams),
            Route::Profile => matches!(self, Self::Operations),
            Route::Stream | Route::Ticket | Route::Other => !matches!(self, Self::Operations),
        }
    }

    /// What a request is counted as whose path would be this route's.
    pub(crate) const fn seen_as(self, route: Route) -> Route {
        if self.serves(route) { route } else { Route::Other }
    }
}

impl From<Vec<TcpListener>> for Listeners {
    fn from(public: Vec<TcpListener>) -> Self {
        Self { public, operations: None }
    }
}
