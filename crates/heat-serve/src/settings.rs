//! Settings of the server: the command's options, and the keys of its configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use heat_ood::calibrate::drift::DriftConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::log::Form;

/// A name and a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedFile {
    /// What clients call it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// Settings of the server. Keys are the options of `heat serve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// The detectors.
    pub detectors: Vec<NamedFile>,
    /// Networks before some of them, by the detector's name.
    pub backbones: Vec<NamedFile>,
    /// Where the data plane listens.
    pub listen: SocketAddr,
    /// Where gRPC is spoken; nothing: nowhere.
    pub grpc: Option<SocketAddr>,
    /// Where the admin plane listens; nothing: nowhere.
    pub admin: Option<SocketAddr>,
    /// Names by which the admin plane is asked for, besides addresses and localhost.
    pub admin_hosts: Vec<String>,
    /// The file of tokens.
    pub tokens: Option<PathBuf>,
    /// The server's certificate, and those between it and its authority (PEM).
    pub tls_cert: Option<PathBuf>,
    /// The key to it.
    pub tls_key: Option<PathBuf>,
    /// The authority of clients' certificates.
    pub tls_client_ca: Option<PathBuf>,
    /// Whether strangers may ask over the network.
    pub insecure: bool,
    /// Threads that score.
    pub threads: usize,
    /// Rows that are scored together at most.
    pub max_batch_rows: usize,
    /// How long the first row of a batch waits for others.
    #[serde(with = "duration")]
    pub batch_wait: Duration,
    /// Rows of a request.
    pub max_request_rows: usize,
    /// Bytes of a body, as it comes and unpacked.
    pub max_body: usize,
    /// Pixels of an image.
    pub max_pixels: u64,
    /// Rows that may wait.
    pub queue_rows: usize,
    /// Bytes that all requests together may hold.
    pub memory: usize,
    /// Connections.
    pub max_connections: usize,
    /// How long an answer may take.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How long a body may take to come.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long a head may take to come.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// How long requests may take that are being answered when the server ends.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// How long connections are still taken after it is said that the server ends.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// How long a connection may be silent between requests.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Smallest fraction of anomalous rows that is an alarm of drift.
    pub drift_effect: f64,
    /// Where what the monitor knows is kept over a restart; nothing: nowhere.
    pub monitor_state: Option<PathBuf>,
    /// Whether files that change are read again.
    pub watch: bool,
    /// Requests that the page shows.
    pub recent: usize,
    /// How lines are written.
    pub log: Form,
    /// Whether each request is a line.
    pub log_requests: bool,
    /// Whether answers are packed for clients that take it.
    pub compress: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Settings {
            detectors: Vec::new(),
            backbones: Vec::new(),
            listen: local(8080),
            grpc: None,
            admin: Some(local(9090)),
            admin_hosts: Vec::new(),
            tokens: None,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            insecure: false,
            threads: heat_ood::math::parallel::threads(),
            max_batch_rows: 1024,
            batch_wait: Duration::ZERO,
            max_request_rows: 16384,
            max_body: 64 << 20,
            max_pixels: 1 << 24,
            queue_rows: 65536,
            memory: 256 << 20,
            max_connections: 1024,
            request_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            drift_effect: DriftConfig::default().min_admixture,
            drain: Duration::from_secs(20),
            drain_delay: Duration::ZERO,
            monitor_state: None,
            watch: false,
            recent: 256,
            log: Form::Auto,
            log_requests: true,
            compress: false,
        }
    }
}

mod duration {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&humantime::format_duration(*value).to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

impl Settings {
    /// As text, as a configuration file has it. It holds no secret.
    pub fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// From such a text.
    ///
    /// # Errors
    /// If it is none; the text says where.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_options_say() {
        let text = r#"
            listen = "0.0.0.0:80"
            max-batch-rows = 7
            batch-wait = "1ms 500us"
            log = "json"
            [[detectors]]
            name = "a"
            path = "a.safetensors"
        "#;
        let read = Settings::parse(text).unwrap();
        assert_eq!((read.max_batch_rows, read.batch_wait), (7, Duration::from_micros(1500)));
        assert_eq!(read.detectors[0].name, "a");
        assert_eq!(Settings::parse(&read.to_text()).unwrap(), read);
        assert!(Settings::parse("max_batch_rows = 7").unwrap_err().contains("max_batch_rows"));
        assert!(Settings::parse("batch-wait = \"soon\"").is_err());
    }
}
