//! A root of its own, certificates of it, and clients that trust it.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::HANG;

/// A root, and a certificate of it for `localhost` with its key, in a folder.
pub(crate) struct TestTls {
    folder: tempfile::TempDir,
    root: CertificateDer<'static>,
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl TestTls {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root = params.self_signed(&root_key).unwrap();
        let tls = Self {
            folder: tempfile::tempdir().unwrap(),
            root: root.der().clone(),
            root_pem: root.pem(),
            issuer: Issuer::new(params, root_key),
        };
        let (certificate, key) = tls.certificate("localhost", |_| {});
        tls.write("tls.crt", &certificate);
        tls.write("tls.key", &key);
        tls
    }

    /// The root, PEM.
    pub(crate) fn root_pem(&self) -> String {
        self.root_pem.clone()
    }

    /// A new certificate for a name, and its key, both PEM.
    pub(crate) fn certificate(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    /// What a client that trusts the root and offers these protocols goes by.
    pub(crate) fn client_config(
        &self,
        protocols: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    /// A client that trusts the root and offers these protocols.
    pub(crate) fn client(
        &self,
        address: SocketAddr,
        protocols: &[&[u8]],
    ) -> StreamOwned<ClientConnection, TcpStream> {
        connect(address, self.client_config(protocols, rustls::ALL_VERSIONS))
    }
}

/// A connection to `localhost` at an address.
pub(crate) fn connect(
    address: SocketAddr,
    config: ClientConfig,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    StreamOwned::new(client, stream)
}
