//! Opens the store, be it inside this process or elsewhere.

use std::{future::pending, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use tailwater_s2::{
    EmbeddedStore, EmbeddedStoreConfig, Exposure, Meter, Placement, S2Upstream, S2UpstreamConfig, Secret, Storage,
    StoreEnd,
};
use tailwater_upstream::Upstream;

use crate::{
    config::{Data, Store},
    secret,
};

/// An open store.
pub(crate) struct Opened {
    pub(crate) upstream: Arc<dyn Upstream>,
    /// The one inside this process.
    pub(crate) embedded: Option<EmbeddedStore>,
}

impl Opened {
    /// Resolves when the store has ended by itself, with the reason.
    pub(crate) async fn ended(&self) -> anyhow::Error {
        match &self.embedded {
            Some(embedded) => lost(embedded.closed().await),
            None => pending().await,
        }
    }

    /// Closes what is inside this process.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        drop(self.upstream);
        match self.embedded {
            Some(embedded) => embedded.shutdown().await.context("the embedded store was not closed properly"),
            None => Ok(()),
        }
    }
}

/// Opens the store of a gateway.
pub(crate) async fn open(store: &Store, placement: Placement, meter: Meter) -> anyhow::Result<Opened> {
    match store {
        Store::Remote { endpoint, token_file } => {
            let token = match token_file {
                Some(file) => read_token(file)?,
                // A store without access control takes any token, but wants one.
                None => Secret::from("none"),
            };
            let config = S2UpstreamConfig::new(endpoint.clone(), token, placement);
            let upstream = S2Upstream::new(config, meter)?;
            Ok(Opened { upstream: Arc::new(upstream), embedded: None })
        }
        Store::Embedded { data, expose, token_file } => {
            let exposure = match expose {
                Some(address) => Some(exposure(*address, token_file.as_deref())?),
                None => None,
            };
            let embedded = start(data, exposure).await?;
            let upstream = embedded.upstream(placement, meter)?;
            Ok(Opened { upstream: Arc::new(upstream), embedded: Some(embedded) })
        }
    }
}

/// Starts an embedded store.
pub(crate) async fn start(data: &Data, expose: Option<Exposure>) -> anyhow::Result<EmbeddedStore> {
    let storage = match data {
        Data::Memory => Storage::Memory,
        Data::Directory(directory) => Storage::Directory(directory.clone()),
        Data::Bucket(config) => Storage::Bucket(config.clone()),
    };
    let config = EmbeddedStoreConfig { expose, ..EmbeddedStoreConfig::new(storage) };
    EmbeddedStore::start(config).await.context("the embedded store cannot be started")
}

/// Where, and to whom, a store's S2 API is shown.
pub(crate) fn exposure(addr: SocketAddr, token_file: Option<&Path>) -> anyhow::Result<Exposure> {
    Ok(Exposure { addr, token: token_file.map(read_token).transpose()? })
}

/// Why a store that has ended by itself is the end of the process, too.
pub(crate) fn lost(end: StoreEnd) -> anyhow::Error {
    match end {
        StoreEnd::Closed => anyhow::anyhow!("the embedded store has ended"),
        StoreEnd::Fenced => anyhow::anyhow!("the embedded store has ended: another process has opened its data"),
        StoreEnd::Panicked => anyhow::anyhow!("the embedded store has ended: its database failed"),
    }
}

/// What a file holds, without white space around it.
pub(crate) fn read_token(file: &Path) -> anyhow::Result<Secret> {
    let text = secret::read(file).with_context(|| format!("the token file {} cannot be read", file.display()))?;
    match text.trim() {
        "" => bail!("the token file {} is empty", file.display()),
        token => Ok(Secret::from(token)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_token_is_what_its_file_holds_without_white_space_around_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), " secret\n").unwrap();
        assert_eq!(read_token(file.path()).unwrap().reveal(), "secret");
        fs::write(file.path(), "\n").unwrap();
        assert!(read_token(file.path()).unwrap_err().to_string().ends_with("is empty"));
        assert!(read_token(Path::new("/nowhere/at/all")).is_err());
    }

    #[tokio::test]
    async fn a_directory_is_used_by_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::Directory(directory.path().to_owned());
        let first = start(&data, None).await.unwrap();
        let error = format!("{:#}", start(&data, None).await.err().unwrap());
        assert!(error.contains(&directory.path().display().to_string()), "{error}");
        first.shutdown().await.unwrap();
        start(&data, None).await.unwrap().shutdown().await.unwrap();
    }
}
