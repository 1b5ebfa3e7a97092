//! Whom a request is for (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
//!
//! Nothing is decided by it here, but a proxy in front may decide by it: so a request that names two hosts is refused, and
//! so is one that has to name one and does not.

use http::{HeaderValue, Request, Version, header, uri::Authority};

/// What is wrong with the host that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A request of HTTP/1.1 names none.
    #[error("the header `host` is missing")]
    Missing,
    /// It stands there more than once.
    #[error("the header `host` is given more than once")]
    Repeated,
    /// It is no host, with a port perhaps.
    #[error("this names no host")]
    Malformed,
    /// The header says another one than the URL.
    #[error("the header `host` names another host than the url")]
    Conflicting,
}

/// Looks whether a request names one host at most, and one where it has to.
///
/// # Errors
///
/// It does not, or what it names is no host.
pub fn judge<B>(request: &Request<B>) -> Result<(), HostError> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let (field, further) = (fields.next(), fields.next());
    if further.is_some() {
        return Err(HostError::Repeated);
    }
    if field.is_none() && request.version() == Version::HTTP_11 {
        return Err(HostError::Missing);
    }
    let asked = request.uri().authority();
    if asked.is_some_and(|asked| !is_plain(asked)) {
        return Err(HostError::Malformed);
    }
    // An empty one is for a URL that has none.
    let named = field.filter(|field| !field.is_empty()).map(named).transpose()?;
    let is_default = |port: u16| match request.uri().scheme_str() {
        Some("http") => port == 80,
        Some("https") => port == 443,
        _ => false,
    };
    let port = |host: &Authority| host.port_u16().filter(|port| !is_default(*port));
    match (asked, named) {
        (Some(asked), Some(named)) if !asked.host().eq_ignore_ascii_case(named.host()) => Err(HostError::Conflicting),
        (Some(asked), Some(named)) if port(asked) != port(&named) => Err(HostError::Conflicting),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

fn named(field: &HeaderValue) -> Result<Authority, HostError> {
    let named = Authority::try_from(field.as_bytes()).map_err(|_| HostError::Malformed)?;
    if is_plain(&named) { Ok(named) } else { Err(HostError::Malformed) }
}

/// Whether it is a host, and a port perhaps: nobody stands in front, and no list is made of several fields.
fn is_plain(authority: &Authority) -> bool {
    let host = authority.host();
    let is_port = |port: &str| {
        let digits = port.strip_prefix(':').unwrap_or("none");
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.is_empty() || digits.parse::<u16>().is_ok())
    };
    let behind = authority.as_str().strip_prefix(host);
    !host.is_empty() && !host.contains(',') && behind.is_some_and(|port| port.is_empty() || is_port(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_one_host_and_names_it_once() {
        use HostError::{Conflicting, Malformed, Missing, Repeated};
        use Version as V;
        type Row = (Version, &'static str, &'static [&'static str], Result<(), HostError>);
        let table: [Row; 26] = [
            (V::HTTP_11, "/a", &["h"], Ok(())),
            (V::HTTP_11, "/a", &["h:80"], Ok(())),
            (V::HTTP_11, "/a", &["[::1]:4437"], Ok(())),
            (V::HTTP_11, "/a", &[""], Ok(())),
            (V::HTTP_11, "/a", &[], Err(Missing)),
            (V::HTTP_10, "/a", &[], Ok(())),
            (V::HTTP_2, "/a", &[], Ok(())),
            (V::HTTP_11, "/a", &["h", "h"], Err(Repeated)),
            (V::HTTP_10, "/a", &["h", "g"], Err(Repeated)),
            (V::HTTP_11, "/a", &["u@h"], Err(Malformed)),
            (V::HTTP_11, "/a", &["h/b"], Err(Malformed)),
            (V::HTTP_11, "/a", &["h g"], Err(Malformed)),
            (V::HTTP_11, "/a", &[":80"], Err(Malformed)),
            (V::HTTP_11, "/a", &["h:"], Ok(())),
            (V::HTTP_11, "/a", &["h,g"], Err(Malformed)),
            (V::HTTP_11, "/a", &["h:4,3"], Err(Malformed)),
            (V::HTTP_11, "/a", &["h:65536"], Err(Malformed)),
            (V::HTTP_11, "/a", &["h:+80"], Err(Malformed)),
            (V::HTTP_2, "https://h:4,3/a", &[], Err(Malformed)),
            (V::HTTP_11, "http://h/a", &["h"], Ok(())),
            (V::HTTP_11, "http://H/a", &["h:80"], Ok(())),
            (V::HTTP_11, "http://h/a", &["g"], Err(Conflicting)),
            (V::HTTP_11, "http://h:81/a", &["h"], Err(Conflicting)),
            (V::HTTP_2, "https://h/a", &["g"], Err(Conflicting)),
            (V::HTTP_2, "https://h/a", &["h:443"], Ok(())),
            (V::HTTP_2, "https://u@h/a", &[], Err(Malformed)),
        ];
        for (version, uri, hosts, judged) in table {
            let mut request = Request::builder().version(version).uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            assert_eq!(judge(&request.body(()).unwrap()), judged, "{version:?} {uri} {hosts:?}");
        }
    }
}
