//! TLS: certificates, read again when they are renewed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use heat_ood::Error;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// The files of certificates.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The server's own, with those between it and its authority.
    pub certificate: PathBuf,
    /// The key to it.
    pub key: PathBuf,
    /// The authority of clients, if they need certificates too.
    pub client_authority: Option<PathBuf>,
}

/// What is presented now.
pub struct Tls {
    files: Certificates,
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Read the files.
    ///
    /// # Errors
    /// If one cannot be read, or they do not go together.
    pub fn open(files: Certificates) -> heat_ood::Result<Self> {
        let current = ArcSwap::from(read(&files)?);
        Ok(Tls { files, current })
    }

    /// Read the files again. On a failure those before stay.
    ///
    /// # Errors
    /// As [`Tls::open`].
    pub fn reload(&self) -> heat_ood::Result<()> {
        self.current.store(read(&self.files)?);
        Ok(())
    }

    /// What is presented now.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn certificates(path: &Path) -> heat_ood::Result<Vec<CertificateDer<'static>>> {
    let bad = |e: &dyn std::fmt::Display| Error::format(path, format!("no certificates: {e}"));
    let all: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| bad(&e))?;
    match all.is_empty() {
        true => Err(bad(&"expected PEM, which begins with -----BEGIN CERTIFICATE-----")),
        false => Ok(all),
    }
}

/// TLS 1.2 and 1.3.
fn read(files: &Certificates) -> heat_ood::Result<Arc<ServerConfig>> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| Error::format(&files.key, format!("no private key: {e}")))?;
    let builder = ServerConfig::builder();
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let bad = |e: &dyn std::fmt::Display| Error::format(path, e.to_string());
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| bad(&e))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
            builder.with_client_cert_verifier(verifier.build().map_err(|e| bad(&e))?)
        }
    };
    let problem = |e: tokio_rustls::rustls::Error| Error::format(&files.certificate, e.to_string());
    let mut config = builder.with_single_cert(chain, key).map_err(problem)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
