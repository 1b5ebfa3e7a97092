//! Where keys of issuers are fetched from: settings to what fetches them.

use std::path::PathBuf;

use prometheus::Registry;
use tailwater_auth::JwksHosts;
use tailwater_server::{Authorities, IssuerMetrics, Issuers, IssuersSeed, Reach, Resolver};

use crate::{
    config::{ConfigError, refused},
    settings::{AuthMode, ServeSettings},
};

/// Where keys may be fetched from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    hosts: JwksHosts,
    reach: Reach,
    /// Networks beyond the public Internet in which those hosts may be, for the log.
    networks: Vec<String>,
    /// A file of certificates that are believed beside the system's.
    authorities: Option<PathBuf>,
}

impl Outside {
    /// Judges settings: without hosts, keys are not fetched.
    pub(crate) fn decide(settings: &ServeSettings) -> Result<Option<Self>, ConfigError> {
        let hosts = settings.jwks_host.iter().flatten().map(String::as_str);
        let hosts = JwksHosts::parse(hosts).map_err(|fault| refused("jwks-host", &fault))?;
        let networks = settings.jwks_private_network.clone().unwrap_or_default();
        let reach = Reach::with(&networks).map_err(|fault| refused("jwks-private-network", &fault))?;
        let dependent = [
            ("jwks-ca", settings.jwks_ca.is_some()),
            ("jwks-private-network", settings.jwks_private_network.is_some()),
        ];
        if hosts.is_empty() {
            return match dependent.into_iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(refused(name, &"is for keys of issuers, and no --jwks-host has any")),
                None => Ok(None),
            };
        }
        if settings.projects.is_none() && settings.auth != Some(AuthMode::Required) {
            return Err(refused("jwks-host", &"is for auth required, and nobody is asked for a token"));
        }
        Ok(Some(Self { hosts, reach, networks, authorities: settings.jwks_ca.clone() }))
    }

    /// What fetches from there.
    pub(crate) fn open(&self, registry: &Registry) -> anyhow::Result<Issuers> {
        if !self.networks.is_empty() {
            let networks = self.networks.join(" ");
            tracing::warn!(networks, "hosts that keys are fetched from may be in networks that are not public");
        }
        Ok(Issuers::new(IssuersSeed {
            hosts: self.hosts.clone(),
            reach: self.reach.clone(),
            authorities: Authorities::load(self.authorities.as_deref())?,
            resolver: Resolver::system(),
            metrics: IssuerMetrics::register(registry)?,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(text: &str) -> Result<Option<Outside>, ConfigError> {
        Outside::decide(&toml::from_str(text).unwrap())
    }

    #[test]
    fn keys_are_fetched_from_hosts_that_are_named_and_from_nowhere_else() {
        assert_eq!(decided("projects = 'p'").unwrap(), None);
        let of_run_time = decided("auth = 'required'\nadmin-token-file = 'f'\njwks-host = ['login.example']").unwrap();
        assert!(of_run_time.is_some_and(|outside| outside.hosts == JwksHosts::parse(["login.example"]).unwrap()));
        let outside = decided(
            "projects = 'p'\njwks-host = ['login.example', 'a.example:8443']\njwks-ca = 'c'\njwks-private-network = ['10.0.0.0/8']",
        );
        let expected = Outside {
            hosts: JwksHosts::parse(["login.example", "a.example:8443"]).unwrap(),
            reach: Reach::with(["10.0.0.0/8"]).unwrap(),
            networks: vec!["10.0.0.0/8".to_owned()],
            authorities: Some("c".into()),
        };
        assert_eq!(outside.unwrap(), Some(expected));
        let refused = [
            ("jwks-host = ['login.example']", "jwks-host"),
            ("auth = 'open'\njwks-host = ['login.example']", "jwks-host"),
            ("projects = 'p'\njwks-host = ['https://login.example/']", "jwks-host"),
            ("projects = 'p'\njwks-host = ['10.0.0.1']", "jwks-host"),
            ("projects = 'p'\njwks-ca = 'c'", "jwks-ca"),
            ("projects = 'p'\njwks-private-network = ['10.0.0.0/8']", "jwks-private-network"),
            (
                "projects = 'p'\njwks-host = ['a.example']\njwks-private-network = ['10.0.0.0/40']",
                "jwks-private-network",
            ),
        ];
        for (text, setting) in refused {
            let error = decided(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{setting}: ")), "{error}");
        }
    }
}
