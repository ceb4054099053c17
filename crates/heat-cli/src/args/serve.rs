//! `heat serve`, `heat token`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::size;

pub const SERVE_HELP: &str = "\
  heat serve detector.safetensors
  curl localhost:8080/v2/models/detector
  curl localhost:8080/v2/models/detector/infer -d '{\"inputs\": [{\"name\": \"avg\", \"shape\": [1, 3],
    \"datatype\": \"FP32\", \"data\": [0.1, 0.2, 0.3]}]}'
SIGHUP reads detectors, tokens and certificates again; SIGTERM answers what was taken and ends,
a second one ends at once. --memory is what requests may hold all together [default: 256MiB].
docs/serving.md has the protocol, limits, and examples for systemd, Kubernetes and Prometheus.
Exit codes: 0 after a clean end, 1 if requests were cut off or files are wrong, 2 settings";

/// `heat serve`
#[derive(Args)]
pub struct ServeArgs {
    /// Detectors by the names that clients use [default: the file's name without its ending]
    #[arg(value_name = "[NAME=]DETECTOR", required_unless_present = "config")]
    pub detectors: Vec<String>,
    /// The classifier before a detector, which then takes images too
    #[arg(long, value_name = "NAME=MODEL.onnx")]
    pub backbone: Vec<String>,
    /// Settings in a TOML file: its keys are these options; what is given here counts first
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Load everything, print the resolved settings and end
    #[arg(long)]
    pub check: bool,
    /// Where clients ask [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where clients ask by gRPC [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub grpc: Option<SocketAddr>,
    /// Where operators ask: metrics, the page, reload [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "no_admin")]
    pub admin: Option<SocketAddr>,
    /// No admin plane
    #[arg(long)]
    pub no_admin: bool,
    /// A name by which browsers ask the admin plane, besides addresses and localhost
    #[arg(long, value_name = "HOST")]
    pub admin_host: Vec<String>,
    /// File of tokens, as `heat token` prints their lines; mode 0600
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Certificate chain (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authority of clients' certificates, which are needed then (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Listen where strangers can ask, without tokens
    #[arg(long)]
    pub insecure: bool,
    /// Rows that are scored together [default: 1024]
    #[arg(long, value_name = "N")]
    pub max_batch_rows: Option<usize>,
    /// How long the first row of a batch waits for others [default: 0ms]
    #[arg(long, value_name = "TIME")]
    pub batch_wait: Option<String>,
    /// Rows of a request [default: 16384]
    #[arg(long, value_name = "N")]
    pub max_request_rows: Option<usize>,
    /// Bytes of a body, packed or not [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_body: Option<usize>,
    /// Pixels of an image [default: 16777216]
    #[arg(long, value_name = "N")]
    pub max_pixels: Option<u64>,
    /// Rows that may wait to be scored [default: 65536]
    #[arg(long, value_name = "N")]
    pub queue_rows: Option<usize>,
    /// Connections of clients [default: 1024]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// How long an answer may take [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub request_timeout: Option<String>,
    /// How long a body may take to come [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub body_timeout: Option<String>,
    /// How long a head or a handshake may take to come [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub header_timeout: Option<String>,
    /// How long a connection may be silent between requests [default: 75s]
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<String>,
    /// Smallest fraction of anomalous rows that is an alarm of drift [default: 0.02]
    #[arg(long, value_name = "FRACTION")]
    pub drift_effect: Option<f64>,
    /// Directory in which what the monitor knows is kept over a restart [default: nowhere]
    #[arg(long, value_name = "DIR")]
    pub monitor_state: Option<PathBuf>,
    /// How long requests that were taken may take at the end [default: 20s]
    #[arg(long, value_name = "TIME")]
    pub drain: Option<String>,
    /// How long connections are still taken after `ready` says no [default: 0s]
    #[arg(long, value_name = "TIME")]
    pub drain_delay: Option<String>,
    /// Read a detector again when its file changes
    #[arg(long)]
    pub watch: bool,
    /// Requests that the page shows [default: 256]
    #[arg(long, value_name = "N")]
    pub recent: Option<usize>,
    /// How the log is written, on standard error [default: auto: text on a terminal, else json]
    #[arg(long, value_enum)]
    pub log: Option<LogForm>,
    /// No line for each request
    #[arg(long)]
    pub no_request_log: bool,
    /// Pack answers for clients that take it
    #[arg(long)]
    pub compress: bool,
}

/// Forms of the log.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogForm {
    Auto,
    Text,
    Json,
}

/// `heat token`
#[derive(Args)]
pub struct TokenArgs {
    /// Whose it is, for people
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it opens
    #[arg(long, value_enum, default_value_t = TokenScope::Score)]
    pub scope: TokenScope,
}

/// Scopes of tokens.
#[derive(Clone, Copy, ValueEnum)]
pub enum TokenScope {
    /// Scores and metadata
    Score,
    /// The admin plane, and scores
    Admin,
}
