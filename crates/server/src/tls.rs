//! TLS at the listeners: a certificate and its key from two PEM files, which may be replaced while the program runs.
//!
//! The files are looked at every few seconds. A pair that is broken, as one is when only one of the two files was replaced
//! yet, is said once and not used: the old pair stays. Connections that are open keep what they began with.
//!
//! TLS 1.2 and 1.3. Sessions are resumed with tickets, which cost the server no memory (RFC 8446, section 2.2). The
//! protocol is agreed on in the handshake (RFC 7301), HTTP/2 first.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
    time::sleep,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
    server::TlsStream,
};
use zeroize::Zeroizing;

use crate::rewind::Version;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// HTTP/2 and HTTP/1.1, as they are called in a handshake.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What makes listeners speak TLS; a cheap clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    pair: Arc<Pair>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not PEM, or not what it should be.
    #[error("{} holds no {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// The key is of no use with the certificate.
    #[error("the key in {} is not the one of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The cryptography is not available.
    #[error("tls cannot be set up")]
    Setup {
        /// Why.
        source: rustls::Error,
    },
}

/// What a look at the files has come to.
#[derive(Debug)]
pub(crate) enum Looked {
    /// They are as they were.
    Same,
    /// The new pair is in force.
    Replaced,
    /// The new pair is broken, and the old one in force.
    Kept(TlsError),
}

/// The pair in force, and the files that it came from.
struct Pair {
    files: Files,
    provider: Arc<CryptoProvider>,
    in_force: RwLock<Arc<CertifiedKey>>,
    /// Of the files when they were read last, whatever came of it.
    seen: Mutex<Stamp>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What changes when a file is written or replaced; `None` for one that is not there.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

impl Tls {
    /// Reads a certificate, with what leads from it to an authority, and its key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// [`TlsError`], where they cannot be read or do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let seen = Mutex::new(files.stamp());
        let in_force = RwLock::new(Arc::new(files.read(&provider)?));
        let pair = Arc::new(Pair { files, provider: Arc::clone(&provider), in_force, seen });
        let setup = |source| TlsError::Setup { source };
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let resolver: Arc<Pair> = Arc::clone(&pair);
        let mut config = builder.map_err(setup)?.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(setup)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), pair })
    }

    /// Shakes hands, and learns which version of HTTP comes.
    pub(crate) async fn accept<Io>(&self, io: Io) -> io::Result<(Version, TlsStream<Io>)>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let io = self.acceptor.accept(io).await?;
        let agreed = io.get_ref().1.alpn_protocol();
        Ok((if agreed == Some(ALPN[0]) { Version::Two } else { Version::One }, io))
    }

    /// Looks at the files for ever.
    pub(crate) async fn watch(self) {
        loop {
            sleep(LOOK_EVERY).await;
            let pair = Arc::clone(&self.pair);
            match spawn_blocking(move || pair.look()).await {
                Ok(Looked::Same) => {}
                Ok(Looked::Replaced) => tracing::info!("the certificate was replaced"),
                Ok(Looked::Kept(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "the certificate was not replaced");
                }
                Err(error) => tracing::error!(%error, "the files of the certificate were not looked at"),
            }
        }
    }
}

impl Pair {
    /// Reads the files again if they have changed.
    fn look(&self) -> Looked {
        // Taken before the reading: what changes meanwhile is seen the next time.
        let stamp = self.files.stamp();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp {
            return Looked::Same;
        }
        *seen = stamp;
        match self.files.read(&self.provider) {
            Ok(read) => {
                *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
                Looked::Replaced
            }
            Err(error) => Looked::Kept(error),
        }
    }
}

impl Files {
    fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let malformed = |path: &Path, expected| {
            let path = path.to_owned();
            move |source| TlsError::Malformed { path, expected, source }
        };
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?).collect::<Result<Vec<_>, _>>();
        let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
        let chain = chain.map_err(malformed(&self.certificate, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(malformed(&self.key, "private key"))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Mismatch {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })
    }

    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        })
    }
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.pair.files).finish()
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pair").field(&self.files).finish()
    }
}

/// What was read wipes itself.
const _: fn(&Path) -> Result<Zeroizing<Vec<u8>>, TlsError> = read;

/// One of the files holds a key.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    fs::read(path).map(Zeroizing::new).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use tempfile::{TempDir, tempdir};

    use super::*;

    /// A certificate and its key, in PEM.
    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn written(certificate: &str, key: &str) -> (TempDir, PathBuf, PathBuf) {
        let directory = tempdir().unwrap();
        let paths = [directory.path().join("tls.crt"), directory.path().join("tls.key")];
        fs::write(&paths[0], certificate).unwrap();
        fs::write(&paths[1], key).unwrap();
        let [certificate, key] = paths;
        (directory, certificate, key)
    }

    fn shown(tls: &Tls) -> Vec<u8> {
        tls.pair.in_force.read().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_pair_that_is_no_pair_is_refused_by_name() {
        let ((certificate, key), (_, foreign)) = (pair(), pair());
        let table = [
            (certificate.as_str(), foreign.as_str(), "is not the one of the certificate"),
            (certificate.as_str(), "", "tls.key holds no private key"),
            (certificate.as_str(), certificate.as_str(), "tls.key holds no private key"),
            ("nothing", key.as_str(), "tls.crt holds no certificate"),
            (key.as_str(), key.as_str(), "tls.crt holds no certificate"),
        ];
        for (certificate, key, fault) in table {
            let (_directory, certificate, key) = written(certificate, key);
            let error = Tls::load(&certificate, &key).unwrap_err().to_string();
            assert!(error.contains(fault), "{fault}: {error}");
        }
        let error = Tls::load(Path::new("nowhere.crt"), Path::new("nowhere.key")).unwrap_err().to_string();
        assert_eq!(error, "nowhere.crt cannot be read");
    }

    #[test]
    fn a_new_pair_replaces_the_old_one_and_half_of_one_does_not() {
        let (old, new) = (pair(), pair());
        let (_directory, certificate, key) = written(&old.0, &old.1);
        let tls = Tls::load(&certificate, &key).unwrap();
        let before = shown(&tls);
        assert!(matches!(tls.pair.look(), Looked::Same));

        // Each a new file, as those who replace certificates make it.
        let replace = |path: &Path, text: &str| {
            let aside = path.with_extension("new");
            fs::write(&aside, text).unwrap();
            fs::rename(&aside, path).unwrap();
        };
        replace(&certificate, &new.0);
        assert!(matches!(tls.pair.look(), Looked::Kept(TlsError::Mismatch { .. })));
        assert!(matches!(tls.pair.look(), Looked::Same), "said once");
        assert_eq!(shown(&tls), before);
        replace(&key, &new.1);
        assert!(matches!(tls.pair.look(), Looked::Replaced));
        assert_ne!(shown(&tls), before);
        fs::remove_file(&key).unwrap();
        assert!(matches!(tls.pair.look(), Looked::Kept(TlsError::Unreadable { .. })));
    }
}
