//! What this crate reads of strangers' bytes in places that are otherwise its own, laid open for the targets that fuzz it.
//!
//! Each function is the one that requests go through; nothing is decided here.

use std::{io, net::SocketAddr};

use http::{HeaderMap, Request, Uri, Version};
use tokio::io::AsyncRead;

use crate::{
    PublicUrl,
    admission::Peer,
    connection, event_source,
    location::{self, LocalAddress},
    profile, rewind,
};

/// What a page calls the origin of a gateway whose listener has this address and scheme, as this request names it.
#[must_use]
pub fn own_origin(
    public: Option<&PublicUrl>,
    (address, scheme): (SocketAddr, &'static str),
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<String> {
    location::own_origin(public, uri, headers, Some(LocalAddress { address, scheme }))
}

/// Whether it is an `EventSource` of a browser that asks.
#[must_use]
pub fn is_event_source(headers: &HeaderMap) -> bool {
    event_source::is_event_source(headers)
}

/// For how long a profile is made, in seconds; `None` where the query says what cannot be.
#[must_use]
pub fn profile_seconds(query: Option<&str>) -> Option<u64> {
    profile::seconds(query)
}

/// The version of HTTP that a connection begins with, [`Version::HTTP_2`] or not, and the connection from its first byte.
///
/// # Errors
///
/// Those of the connection.
pub async fn sniff(io: impl AsyncRead + Unpin) -> io::Result<(Version, impl AsyncRead + Unpin)> {
    let (version, io) = rewind::sniff(io).await?;
    let version = match version {
        rewind::Version::One => Version::HTTP_11,
        rewind::Version::Two => Version::HTTP_2,
    };
    Ok((version, io))
}

/// Tells a request which connection it came on: accepted at this address, with this scheme, from this peer.
pub fn arrive<B>(request: &mut Request<B>, (address, scheme): (SocketAddr, &'static str), peer: SocketAddr) {
    connection::arrive(request, LocalAddress { address, scheme }, Peer(peer));
}
