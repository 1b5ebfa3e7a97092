//! Keys and projects out of documents: an issuer's set of keys, where it is fetched, a file of projects.

use serde_json::Value;
use tailwater_auth::{
    File, Jwks, JwksError, JwksUrl, Projects,
    jwks::{JwksHosts, MAX_JWKS, MAX_JWKS_KEYS, MAX_URL},
};

use crate::{
    input::lines,
    trust::{MOMENT, id, project, signed},
};

pub(crate) fn jwks(data: &[u8]) {
    let set = match Jwks::parse(data) {
        Ok(set) => set,
        Err(error) => {
            assert!((error == JwksError::TooLong) == (data.len() > MAX_JWKS));
            return;
        }
    };
    assert!(set.keys.len() + set.passed_over.len() <= MAX_JWKS_KEYS);
    for (at, key) in set.keys.iter().enumerate() {
        assert!(key.id().is_some() && !key.algorithm().is_symmetric() && key.signing().is_none());
        let is_same = |other: &tailwater_auth::Key| other.id() == key.id() && other.algorithm() == key.algorithm();
        assert!(!set.keys[..at].iter().any(is_same));
        // A key that anybody may have published verifies nothing that it has not signed.
        let name = key.id().map_or("", |id| id.as_str());
        let header = format!("{{\"alg\":\"{}\",\"kid\":\"{name}\"}}", key.algorithm());
        let claims = b"{\"sub\":\"chat\",\"exp\":1900000000,\"iss\":\"https://login.example\",\"aud\":\"tailwater\"}";
        let token = signed(header.as_bytes(), claims);
        assert!(project("chat").verify_with(key, &token, MOMENT).is_err());
    }
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let keys = value["keys"].as_array().expect("a set has an array of keys");
    assert_eq!(keys.len(), set.keys.len() + set.passed_over.len());
    for key in keys {
        let kind = key["kty"].as_str().expect("a key has a kind");
        assert_ne!(kind, "oct");
        let known = ["RSA", "EC", "OKP"].contains(&kind);
        assert!(!known || !["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| has(key, name)), "{key}");
    }
}

fn has(key: &Value, name: &str) -> bool {
    key.get(name).is_some_and(|value| !value.is_null())
}

/// A URL, and a host that is listed.
pub(crate) fn jwks_url(data: &[u8]) {
    let [url, host] = lines::<2>(data).map(|line| line.unwrap_or_default());
    let hosts = JwksHosts::parse([&*host]).unwrap_or_default();
    let Ok(read) = JwksUrl::parse(&url) else { return };
    assert!(url.len() <= MAX_URL && read.as_str() == url);
    assert_eq!(format!("https://{}{}", read.authority(), read.target()), url);
    // Whoever fetches it by another reader comes to the same host and port, and asks for the same there.
    let uri: http::Uri = url.parse().expect("what is taken is a url");
    assert_eq!(uri.scheme_str(), Some("https"));
    assert_eq!(uri.host(), Some(read.host()));
    assert_eq!(uri.port_u16().unwrap_or(443), read.port());
    assert_eq!(uri.path_and_query().map(http::uri::PathAndQuery::as_str), Some(read.target()));
    assert!(read.host().parse::<std::net::IpAddr>().is_err());
    let (name, port) = host.split_once(':').unwrap_or((&host, "443"));
    assert_eq!(hosts.lists(&read), name == read.host() && port == read.port().to_string());
    let own = JwksHosts::parse([read.authority()]).expect("a url's host is one that can be listed");
    assert!(own.lists(&read) && !JwksHosts::default().lists(&read));
}

/// A file of projects, in which what is called a secret is `hunter2` again and again.
pub(crate) fn document(data: &[u8]) {
    const PLANTED: &str = "hunter2hunter2";
    let Ok(text) = str::from_utf8(data) else { return };
    let read = Projects::parse([File { name: "projects.toml", bytes: data }]);
    // Elsewhere than as a secret, such as in a key's name, it is none.
    let is_secret_only = text.matches(PLANTED).count() == text.matches(&format!("\nsecret = '{PLANTED}")).count();
    match read {
        Ok(projects) => {
            for project in projects.iter() {
                assert_eq!(id(project.id.as_str()), project.id);
                assert!(project.jwks.is_some() || project.keys.iter().next().is_some());
            }
            assert!(!is_secret_only || !format!("{projects:?}").contains(PLANTED));
        }
        Err(error) => assert!(!is_secret_only || !format!("{error} {error:?}").contains(PLANTED), "{error:?}"),
    }
}
