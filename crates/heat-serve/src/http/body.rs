//! The body of a request, bounded before, while and after it is unpacked; and that of an answer.

use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::budget::{Budget, Charge, Limits};
use crate::refusal::{Kind, Refusal, Result};

/// A body that has come, and what it holds in memory.
pub struct Whole {
    /// Its bytes, unpacked.
    pub bytes: Vec<u8>,
    /// What it holds.
    pub charge: Charge,
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// deflate, which is zlib's format.
    Deflate,
}

fn too_large(limit: usize) -> Refusal {
    Refusal::new(
        Kind::TooLarge,
        format!("the body has more than {limit} bytes; send fewer rows at a time"),
    )
}

/// Read a body whole.
///
/// # Errors
/// If it is larger than it may be, too slow, packed in a way that is not known, or there is no
/// memory for it now.
pub async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Result<Whole> {
    let packing = packing(headers)?;
    let mut charge = budget.charge();
    // Bytes are refused by what the head says of them, before any is read.
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let said = said.and_then(|text| text.parse::<usize>().ok());
    if said.is_some_and(|said| said > limits.bytes) {
        return Err(too_large(limits.bytes));
    }
    charge.check(said.unwrap_or(0))?;
    // Held is what has come: a claim that is never kept would keep others out.
    let (mut held, most) = (0, said.unwrap_or(limits.bytes));
    let mut bytes: Vec<u8> = Vec::new();
    // Memory that is not written to costs nothing, and what grows is copied again and again. Where
    // the system does not give it, the bytes take room as they come.
    let _ = bytes.try_reserve_exact(said.unwrap_or(0));
    let come = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::invalid("the body ended before its end"))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > limits.bytes {
                return Err(too_large(limits.bytes));
            }
            if length > held {
                // In steps, so that tiny pieces do not cost a charge each.
                let ahead = held.clamp(4 << 10, 4 << 20).min(most.max(length) - held);
                let more = ahead.max(length - held);
                charge.add(more)?;
                held += more;
            }
            if bytes.capacity() < length {
                // As much ahead as is held already.
                let ahead = held.min(2 * bytes.capacity()).max(length);
                bytes.reserve_exact(ahead - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    let late = || Refusal::new(Kind::Slow, "the body took too long to come");
    tokio::time::timeout(limits.time, come).await.map_err(|_| late())??;
    charge.give_back(held - bytes.len().min(held));
    let Some(packing) = packing else { return Ok(Whole { bytes, charge }) };
    let packed = bytes.len();
    let limit = limits.bytes;
    // Unpacking takes as long as it takes: not on a thread that others wait for.
    let unpacked = tokio::task::spawn_blocking(move || {
        let whole = unpack(packing, &bytes, limit, &mut charge)?;
        drop(bytes);
        charge.give_back(packed);
        Ok(Whole { bytes: whole, charge })
    });
    let failed = |_| Refusal::new(Kind::Internal, "the body could not be unpacked");
    unpacked.await.map_err(failed)?
}

fn packing(headers: &HeaderMap) -> Result<Option<Packing>> {
    let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
    let unknown =
        || Refusal::new(Kind::Encoding, "Content-Encoding is none of gzip, deflate, identity");
    let Some(first) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(unknown());
    }
    match first.as_bytes().to_ascii_lowercase().as_slice() {
        b"gzip" | b"x-gzip" => Ok(Some(Packing::Gzip)),
        b"deflate" => Ok(Some(Packing::Deflate)),
        b"identity" | b"" => Ok(None),
        _ => Err(unknown()),
    }
}

/// Unpack piece by piece, each charged before the next is made.
///
/// # Errors
/// If it is not so packed, has more bytes than `limit`, or there is no memory for it.
pub fn unpack(
    packing: Packing,
    bytes: &[u8],
    limit: usize,
    charge: &mut Charge,
) -> Result<Vec<u8>> {
    let mut left = bytes;
    let mut reader: Box<dyn Read + '_> = match packing {
        // Of several members, one after the other, as the format allows.
        Packing::Gzip => Box::new(MultiGzDecoder::new(&mut left)),
        Packing::Deflate => Box::new(ZlibDecoder::new(&mut left)),
    };
    let mut whole = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let wrong = || Refusal::invalid("the body is not packed as Content-Encoding says");
    loop {
        let n = reader.read(&mut piece).map_err(|_| wrong())?;
        if n == 0 {
            drop(reader);
            if !left.is_empty() {
                return Err(wrong());
            }
            let spare = whole.capacity() - whole.len();
            whole.shrink_to_fit();
            charge.give_back(spare);
            return Ok(whole);
        }
        if whole.len() + n > limit {
            return Err(too_large(limit));
        }
        if whole.capacity() < whole.len() + n {
            // As much again, which is held as a whole.
            let room = (2 * whole.capacity()).max(piece.len()).min(limit);
            charge.add(room - whole.capacity())?;
            whole.reserve_exact(room - whole.len());
        }
        whole.extend_from_slice(&piece[..n]);
    }
}

/// The packing that a client takes, of those that all decode.
pub fn accepted(headers: &HeaderMap) -> Option<Packing> {
    let given = headers.get_all(header::ACCEPT_ENCODING).iter();
    let words = given.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut deflate = false;
    for word in words {
        let (name, rest) = word.split_once(';').unwrap_or((word, ""));
        if rest.trim().replace(' ', "").starts_with("q=0") && !rest.contains(['1', '2', '5', '9']) {
            continue;
        }
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" => return Some(Packing::Gzip),
            "deflate" => deflate = true,
            _ => {}
        }
    }
    deflate.then_some(Packing::Deflate)
}

/// Pack an answer.
pub fn pack(packing: Packing, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let level = Compression::fast();
    match packing {
        Packing::Gzip => {
            let mut to = GzEncoder::new(Vec::new(), level);
            to.write_all(bytes)?;
            to.finish()
        }
        Packing::Deflate => {
            let mut to = ZlibEncoder::new(Vec::new(), level);
            to.write_all(bytes)?;
            to.finish()
        }
    }
}

/// The body of an answer, which counts as memory until it is sent.
pub struct Held {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

/// Bytes with what they hold: they wait in a connection long after the body has given them.
struct Charged {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Held {
    /// Of some bytes that were charged.
    pub fn new(data: Vec<u8>, charge: Charge) -> Self {
        let owner = Charged { bytes: data, _charge: charge };
        Held { data: Some(Bytes::from_owner(owner)), trailers: None }
    }

    /// With these after its bytes.
    pub fn with_trailers(self, trailers: HeaderMap) -> Self {
        Held { trailers: Some(trailers), ..self }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        let data = self.data.take().map(Frame::data);
        let next = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_take() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            accepted(&headers)
        };
        assert_eq!(of("gzip, deflate, br"), Some(Packing::Gzip));
        assert_eq!(of("deflate"), Some(Packing::Deflate));
        assert_eq!(of("br"), None);
        assert_eq!(of("gzip;q=0, deflate;q=0.5"), Some(Packing::Deflate));
        assert_eq!(accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn packed_and_unpacked_within_a_limit() {
        let budget = Budget::new(1 << 20);
        let text = vec![7u8; 100_000];
        for packing in [Packing::Gzip, Packing::Deflate] {
            let packed = pack(packing, &text).unwrap();
            let mut charge = budget.charge();
            assert_eq!(unpack(packing, &packed, 100_000, &mut charge).unwrap(), text);
            assert_eq!(budget.used(), 100_000);
            let refused = unpack(packing, &packed, 99_999, &mut budget.charge()).unwrap_err();
            assert_eq!(refused.kind, Kind::TooLarge);
            assert!(unpack(packing, &text, 1 << 20, &mut budget.charge()).is_err());
            // More after its end is not what was packed.
            let longer = [&packed[..], b"x"].concat();
            assert!(unpack(packing, &longer, 1 << 20, &mut budget.charge()).is_err());
            let cut = &packed[..packed.len() / 2];
            assert!(unpack(packing, cut, 1 << 20, &mut budget.charge()).is_err());
        }
        // Members of gzip are one text.
        let members = [pack(Packing::Gzip, b"ab").unwrap(), pack(Packing::Gzip, b"c").unwrap()];
        let whole = unpack(Packing::Gzip, &members.concat(), 100, &mut budget.charge());
        assert_eq!(whole.unwrap(), b"abc");
        let mut others = budget.charge();
        others.add((1 << 20) - 1000).unwrap();
        let packed = pack(Packing::Gzip, &text).unwrap();
        let refused = unpack(Packing::Gzip, &packed, 1 << 20, &mut budget.charge()).unwrap_err();
        assert_eq!(refused.kind, Kind::Busy);
    }
}
