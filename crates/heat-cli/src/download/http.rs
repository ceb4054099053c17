//! One request to one address.

use std::io::Read;
use std::time::Duration;

use heat_ood::{Error, Result};
use ureq::http::{HeaderMap, StatusCode, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::partial::Origin;

/// Time to reach a server.
const CONNECT: Duration = Duration::from_secs(30);

/// Bytes, and what the server said of them.
pub struct Answer {
    pub origin: Origin,
    pub body: Box<dyn Read>,
    /// Whether it calls them a web page.
    pub is_page: bool,
}

/// What a server answered.
pub enum Reply {
    /// The whole file.
    Whole(Answer),
    /// The file from this byte on.
    Rest(u64, Answer),
    /// It has no such bytes.
    PastEnd,
}

/// Why there was no answer.
pub enum Trouble {
    /// It may be over soon.
    Passing(String),
    /// It will be the same next time.
    Lasting(String),
}

/// Bytes to leave out, and the version they belong to.
pub type Resume<'a> = Option<(u64, Option<&'a str>)>;

/// Asks servers.
pub struct Client(Agent);

impl Client {
    /// `silence`: how long a server may send nothing. Proxies come from
    /// `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
    pub fn new(silence: Duration) -> Result<Self> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("heat/", env!("CARGO_PKG_VERSION")))
            // Checksums are of the file as it is stored, and ranges count its bytes.
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT.min(silence)))
            .timeout_recv_response(Some(silence))
            .timeout_per_read(Some(silence))
            .tls_config(TlsConfig::builder().root_certs(root_certificates()?).build());
        Ok(Client(config.build().new_agent()))
    }

    /// `secure`: wherever the address leads, it is asked by https alone.
    pub fn get(
        &self,
        url: &str,
        resume: Resume<'_>,
        secure: bool,
    ) -> std::result::Result<Reply, Trouble> {
        let mut request = self.0.get(url).config().https_only(secure).build();
        if let Some((from, version)) = resume {
            request = request.header(header::RANGE, format!("bytes={from}-"));
            if let Some(version) = version {
                request = request.header(header::IF_RANGE, version);
            }
        }
        let (head, body) = request.call().map_err(trouble)?.into_parts();
        reply(url, head.status, &head.headers, body)
    }
}

fn reply(
    url: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: Body,
) -> std::result::Result<Reply, Trouble> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut origin = Origin {
        url: url.to_owned(),
        etag: text(header::ETAG),
        last_modified: text(header::LAST_MODIFIED),
        total: None,
    };
    let is_page = text(header::CONTENT_TYPE).is_some_and(|t| t.starts_with("text/html"));
    match status {
        StatusCode::OK => {
            origin.total = body.content_length();
            Ok(Reply::Whole(Answer { origin, body: Box::new(body.into_reader()), is_page }))
        }
        StatusCode::PARTIAL_CONTENT => {
            let range = text(header::CONTENT_RANGE).unwrap_or_default();
            let Some((from, total)) = content_range(&range) else {
                let problem = format!(
                    "answered with a part of the file, in `{range}`: expected `bytes FROM-TO/TOTAL`"
                );
                return Err(Trouble::Lasting(problem));
            };
            origin.total = total;
            Ok(Reply::Rest(from, Answer { origin, body: Box::new(body.into_reader()), is_page }))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Ok(Reply::PastEnd),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(Trouble::Passing(format!("answered {status}")))
        }
        _ if status.is_server_error() => Err(Trouble::Passing(format!("answered {status}"))),
        _ => Err(Trouble::Lasting(format!("answered {status}"))),
    }
}

/// `bytes FROM-TO/TOTAL`, where TOTAL may be `*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let from = range.split_once('-')?.0.trim().parse().ok()?;
    Some((from, total.trim().parse().ok()))
}

fn trouble(error: ureq::Error) -> Trouble {
    use ureq::Error as E;
    let text = error.to_string();
    match error {
        E::RequireHttpsOnly(url) => Trouble::Lasting(format!(
            "leads to {url}, and without a checksum nothing would show what was changed on the \
             way; give the file's `sha256`, or an https address, in a file of your own: --sources FILE"
        )),
        E::Io(_) | E::Timeout(_) | E::HostNotFound | E::ConnectionFailed | E::Protocol(_)
            if !text.contains("certificate") =>
        {
            Trouble::Passing(text)
        }
        _ if text.contains("certificate") => Trouble::Lasting(format!(
            "{text}; if a proxy here has a certificate of its own, name its file in SSL_CERT_FILE"
        )),
        _ => Trouble::Lasting(text),
    }
}

/// Mozilla's, or those of the file that `SSL_CERT_FILE` names.
fn root_certificates() -> Result<RootCerts> {
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|p| !p.is_empty()) else {
        return Ok(RootCerts::WebPki);
    };
    let path = std::path::PathBuf::from(path);
    let pem = std::fs::read(&path).map_err(Error::io("read SSL_CERT_FILE", &path))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let problem = "SSL_CERT_FILE names this file, but it holds no certificate; expected PEM";
        return Err(Error::format(path, problem));
    }
    Ok(RootCerts::from(certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before anything is sent.
    #[test]
    fn a_secure_request_goes_nowhere_by_http() {
        let client = Client::new(Duration::from_secs(1)).unwrap();
        let Err(Trouble::Lasting(said)) = client.get("http://127.0.0.1:9/x", None, true) else {
            panic!("asked");
        };
        assert!(said.contains("http://127.0.0.1:9/x") && said.contains("sha256"), "{said}");
        assert!(matches!(
            client.get("http://127.0.0.1:9/x", None, false),
            Err(Trouble::Passing(_) | Trouble::Lasting(_))
        ));
    }

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for text in ["", "bytes */10", "5-9/10", "bytes 5/10", "items 5-9/10"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
