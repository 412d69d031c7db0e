// SPDX-License-Identifier: GPL-2.0

//! TLS 1.3 in both directions: certificates, or one key that both sides have.
//!
//! rustls has no pre-shared keys, so a shared key is turned into two key pairs, one for each
//! role, that both sides can compute and nobody else. Each proves its own in the handshake as a
//! raw public key (RFC 7250). The traffic keys come from an ephemeral exchange as always, so who
//! learns the shared key later cannot read what was recorded before.

use crate::config::Tls;
use crate::failure::Failure;
use crate::policy::Peer;
use ring::hkdf;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::client::danger::ServerCertVerified;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::AlwaysResolvesClientRawPublicKeys;
use tokio_rustls::rustls::crypto::ring as provider;
use tokio_rustls::rustls::crypto::verify_tls13_signature_with_raw_key;
use tokio_rustls::rustls::crypto::WebPkiSupportedAlgorithms;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::server::danger::ClientCertVerified;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::AlwaysResolvesServerRawPublicKeys;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::DigitallySignedStruct;
use tokio_rustls::rustls::DistinguishedName;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::SignatureScheme;

/// Fewest bytes of a shared key.
const SHARED_KEY: usize = 32;
/// What comes before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The two sides of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Caller,
    Server,
}

/// What rexec needs for TLS.
pub fn client(tls: &Tls) -> Result<Arc<ClientConfig>, Failure> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(wrong)?;
    let mut config = match &tls.shared_key {
        Some(file) => {
            let secret = shared_key(file)?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned::new(&secret, Role::Server)?))
                .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                    key_pair(&secret, Role::Caller)?,
                )))
        }
        None => builder
            .with_root_certificates(roots(file(&tls.authority)?)?)
            .with_client_auth_cert(
                chain(file(&tls.certificate)?)?,
                private_key(file(&tls.key)?)?,
            )
            .map_err(wrong)?,
    };
    // Each rexec is a process of its own, so there is nowhere to keep a session for the next;
    // and early data could be repeated by whoever recorded it.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// What rexec_server needs for TLS.
pub fn server(tls: &Tls) -> Result<Arc<ServerConfig>, Failure> {
    let ring = Arc::new(provider::default_provider());
    let builder = ServerConfig::builder_with_provider(ring.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(wrong)?;
    let mut config = match &tls.shared_key {
        Some(file) => {
            let secret = shared_key(file)?;
            builder
                .with_client_cert_verifier(Arc::new(Pinned::new(&secret, Role::Caller)?))
                .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key_pair(
                    &secret,
                    Role::Server,
                )?)))
        }
        None => {
            let roots = Arc::new(roots(file(&tls.authority)?)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, ring)
                .build()
                .map_err(|error| Failure::Usage(format!("[tls] authority: {error}")))?;
            builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(
                    chain(file(&tls.certificate)?)?,
                    private_key(file(&tls.key)?)?,
                )
                .map_err(wrong)?
        }
    };
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Who a client that passed the handshake is.
pub fn peer(tls: &Tls, certificates: Option<&[CertificateDer<'_>]>) -> io::Result<Peer> {
    if tls.shared_key.is_some() {
        return Ok(Peer::SharedKey);
    }
    let first = certificates.and_then(<[_]>::first);
    let name = first
        .and_then(|certificate| webpki::EndEntityCert::try_from(certificate).ok())
        .and_then(|certificate| certificate.valid_dns_names().next().map(str::to_owned));
    name.map(Peer::Certificate).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the client's certificate has no DNS name (subjectAltName), which is what [[peer]] knows it by",
        )
    })
}

/// The name that the server's certificate must have.
pub fn server_name(tls: &Tls, host: &str) -> Result<ServerName<'static>, Failure> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| {
        Failure::Usage(format!(
            "[tls] server_name: {name:?} is neither a DNS name nor an IP address"
        ))
    })
}

/// What a failed handshake, or the first read after it, means to the user.
pub fn explain(address: &str, error: &io::Error) -> Option<Failure> {
    use rustls::AlertDescription as Alert;
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match inner {
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => Failure::Tls(format!(
            "{address}: the server does not speak TLS: give it keys ([tls]), or leave TLS with --insecure"
        )),
        rustls::Error::AlertReceived(
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::NoApplicationProtocol,
        ) => Failure::Tls(format!("{address}: the server refuses TLS as rexec speaks it ({inner})")),
        _ => Failure::Key(format!(
            "{address}: the keys do not fit ({inner}): [tls] must name keys that both sides accept"
        )),
    })
}

fn wrong(error: rustls::Error) -> Failure {
    Failure::Usage(format!("[tls]: {error}"))
}

/// The file of a field that [`crate::config::Config`] has checked.
fn file(file: &Option<std::path::PathBuf>) -> Result<&Path, Failure> {
    let missing = || Failure::Usage("[tls] needs all of certificate, key and authority".into());
    file.as_deref().ok_or_else(missing)
}

fn unreadable(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!(
        "{}: cannot be used as a key: {error}",
        file.display()
    ))
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(file, error))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_slice(&secret(file)?).map_err(|error| unreadable(file, error))
}

/// The contents of a file that not everybody may read.
fn secret(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut open = File::open(file).map_err(|error| unreadable(file, error))?;
    let mode = open
        .metadata()
        .map_err(|error| unreadable(file, error))?
        .mode();
    if mode & 0o007 != 0 {
        return Err(unreadable(
            file,
            format!(
                "everybody on this machine can have it (mode {:04o}): chmod 600, and make a new one if that matters",
                mode & 0o7777
            ),
        ));
    }
    let mut contents = Vec::new();
    open.read_to_end(&mut contents)
        .map_err(|error| unreadable(file, error))?;
    Ok(contents)
}

fn roots(file: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(file)? {
        roots
            .add(certificate)
            .map_err(|error| unreadable(file, error))?;
    }
    if roots.is_empty() {
        return Err(unreadable(file, "it holds no certificate"));
    }
    Ok(roots)
}

fn shared_key(file: &Path) -> Result<Vec<u8>, Failure> {
    let secret = secret(file)?;
    if secret.len() < SHARED_KEY {
        return Err(unreadable(
            file,
            format!(
                "it has {} bytes: make one with \"head -c {SHARED_KEY} /dev/urandom\"",
                secret.len()
            ),
        ));
    }
    Ok(secret)
}

/// The key pair that the holder of `secret` has in `role`.
fn key_pair(secret: &[u8], role: Role) -> Result<Arc<CertifiedKey>, Failure> {
    let label: &[u8] = match role {
        Role::Caller => b"caller",
        Role::Server => b"server",
    };
    let unexpected = |_| Failure::Usage("[tls] shared_key: no key can be derived".into());
    let mut pkcs8 = PKCS8_ED25519.to_vec();
    let mut seed = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"qtfs rexec shared key 1")
        .extract(secret)
        .expand(&[label], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut seed))
        .map_err(unexpected)?;
    pkcs8.extend_from_slice(&seed);
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    let signer = provider::sign::any_supported_type(&der).map_err(wrong)?;
    let public = signer
        .public_key()
        .ok_or_else(|| Failure::Usage("[tls] shared_key: the key has no public half".into()))?;
    let public = CertificateDer::from(public.to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![public], signer)))
}

/// Accepts exactly one raw public key.
#[derive(Debug)]
struct Pinned {
    key: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(secret: &[u8], role: Role) -> Result<Self, Failure> {
        let pair = key_pair(secret, role)?;
        let key = pair.cert.first().cloned();
        Ok(Self {
            key: key.ok_or_else(|| Failure::Usage("[tls] shared_key: no key".into()))?,
            algorithms: provider::default_provider().signature_verification_algorithms,
        })
    }

    fn verify(&self, key: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if *key == self.key {
            Ok(())
        } else {
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// TLS 1.2 is not offered, so this is never asked.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::PeerIncompatible(
        rustls::PeerIncompatible::Tls12NotOfferedOrEnabled,
    ))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
