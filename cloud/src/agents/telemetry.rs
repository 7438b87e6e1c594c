//! Segments of telemetry: a device offers what it has, sends what is wanted of it, and hears when that is durable. A
//! stream that breaks off costs nothing that has arrived: whole segments are kept, and the front of the next.

use bytes::Bytes;
use link::connection::{RecvStream, SendStream};
use link::frames::{self, LinkError};
use protocol::codec::FrameHeader;
use protocol::limits::{TELEMETRY_BATCH_MAX_BYTES, TELEMETRY_BATCH_SEGMENTS};
use protocol::mux::Priority;
use protocol::problem::{Problem, ProblemCode};
use protocol::wire;
use std::time::Duration;

use super::answer_problem;
use super::session::{Session, StreamError};
use crate::state::now_s;
use crate::telemetry::{BUSY_RETRY_MS, FULL_RETRY_MS, Known, Offered, Verdict, judge};

/// How long a device may send nothing in the middle of a batch.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves one batch.
pub(super) async fn serve(
    session: &Session,
    mut send: SendStream,
    mut recv: RecvStream,
    header: FrameHeader,
) -> Result<(), StreamError> {
    let offer: wire::TelemetryOffer = frames::message(&mut recv, header).await?;
    send.set_priority(Priority::Telemetry);
    let Some(offers) = parse(&offer) else {
        let problem = Problem::new(ProblemCode::TooLarge, "no batch of segments")
            .hint("64 segments and 8 MiB at a time");
        return Ok(answer_problem(&mut send, &mut recv, problem).await?);
    };
    let bytes = offers.iter().map(|offer| offer.size_bytes).sum();
    let Some(_room) = session.cloud.telemetry.room(bytes) else {
        return refuse_for_now(session, &mut send, &mut recv, BUSY_RETRY_MS).await;
    };
    let (device, asked) = (session.device.clone(), offers.clone());
    let telemetry = &session.cloud.telemetry;
    let (known, taken_bytes) = telemetry
        .call(move |store| Ok((store.known(&device, &asked)?, store.size_bytes()?)))
        .await?;
    let mut wanted = wire::TelemetryWanted::default();
    let mut wants = Vec::new();
    for (offer, known) in offers.into_iter().zip(known) {
        match known {
            Known::Taken => wanted.taken.push(offer.segment),
            Known::Conflict => wanted.refused.push(offer.segment),
            Known::Wanted(offset) => wants.push((offer, offset)),
        }
    }
    let most = telemetry.bytes_max();
    if most > 0 && taken_bytes + bytes > most && !wants.is_empty() {
        return refuse_for_now(session, &mut send, &mut recv, FULL_RETRY_MS).await;
    }
    let want = |(offer, offset): &(Offered, u64)| wire::TelemetryWant {
        segment: offer.segment,
        offset: *offset,
    };
    wanted.wants = wants.iter().map(want).collect();
    frames::send(&mut send, &wanted).await?;
    if wants.is_empty() {
        return Ok(send.finish()?);
    }
    let taken = take(session, &mut recv, wants).await?;
    Ok(frames::send_last(&mut send, &taken, []).await?)
}

fn parse(offer: &wire::TelemetryOffer) -> Option<Vec<Offered>> {
    let offers: Option<Vec<Offered>> = offer.segments.iter().map(Offered::parse).collect();
    offers.filter(|offers| {
        let bytes: u64 = offers.iter().map(|offer| offer.size_bytes).sum();
        offers.len() <= TELEMETRY_BATCH_SEGMENTS && bytes <= TELEMETRY_BATCH_MAX_BYTES
    })
}

async fn refuse_for_now(
    session: &Session,
    send: &mut SendStream,
    recv: &mut RecvStream,
    retry_after_ms: u32,
) -> Result<(), StreamError> {
    session.cloud.events.telemetry_put_off(&session.device);
    let wanted = wire::TelemetryWanted { retry_after_ms, ..Default::default() };
    frames::send_last(send, &wanted, []).await?;
    recv.stop(ProblemCode::Overloaded);
    Ok(())
}

/// Takes what was asked for, as far as it comes.
async fn take(
    session: &Session,
    recv: &mut RecvStream,
    wants: Vec<(Offered, u64)>,
) -> Result<wire::TelemetryTaken, StreamError> {
    let mut whole = Vec::new();
    for (offer, offset) in wants {
        let mut body = begun(session, offer.segment, offset).await?;
        if let Err(error) = fill(recv, &mut body, offer.size_bytes).await {
            keep(session, whole).await?;
            let device = session.device.clone();
            let telemetry = &session.cloud.telemetry;
            telemetry.call(move |s| s.keep_partial(&device, &offer, &body, now_s())).await?;
            return Err(error.into());
        }
        whole.push((offer, body));
    }
    keep(session, whole).await
}

/// What is here of a segment whose stream broke off.
async fn begun(session: &Session, segment: u64, offset: u64) -> Result<Vec<u8>, StreamError> {
    if offset == 0 {
        return Ok(Vec::new());
    }
    let device = session.device.clone();
    let mut body =
        session.cloud.telemetry.call(move |store| store.partial(&device, segment)).await?;
    body.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
    Ok(body)
}

/// Reads until it has that many bytes; it gets memory as they arrive.
async fn fill(recv: &mut RecvStream, body: &mut Vec<u8>, size_bytes: u64) -> Result<(), LinkError> {
    let size = usize::try_from(size_bytes).unwrap_or(usize::MAX);
    while body.len() < size {
        let next = tokio::time::timeout(PATIENCE, recv.read_chunk(size - body.len())).await;
        let piece: Option<Bytes> = next.map_err(|_| LinkError::Ended)??;
        body.extend_from_slice(&piece.ok_or(LinkError::Ended)?);
    }
    Ok(())
}

/// Judges what has come, and keeps what is good, on a thread that may block; once this returns it is durable.
async fn keep(
    session: &Session,
    whole: Vec<(Offered, Vec<u8>)>,
) -> Result<wire::TelemetryTaken, StreamError> {
    let mut answer = wire::TelemetryTaken::default();
    if whole.is_empty() {
        return Ok(answer);
    }
    let (device, tenant) = (session.device.clone(), session.identity.tenant.clone());
    let judged = session.cloud.telemetry.call(move |store| {
        let judge = |(offer, body): (Offered, Vec<u8>)| {
            let segment = offer.segment;
            judge(&device, offer, body).map_err(|why| (segment, why))
        };
        let (good, bad): (Vec<_>, Vec<_>) = whole.into_iter().map(judge).partition(Result::is_ok);
        let good: Vec<Verdict> = good.into_iter().flatten().collect();
        store.keep(&device, &tenant, &good, now_s())?;
        let taken: Vec<_> =
            good.iter().map(|v| (v.offered.segment, v.segment.records())).collect();
        Ok((taken, bad.into_iter().filter_map(Result::err).collect::<Vec<_>>()))
    });
    let (taken, refused) = judged.await?;
    let events = &session.cloud.events;
    events.telemetry_taken(taken.len() as u64, taken.iter().map(|(_, records)| records).sum());
    answer.taken = taken.into_iter().map(|(segment, _)| segment).collect();
    for (segment, why) in refused {
        events.telemetry_refused(&session.device, segment, why);
        answer.refused.push(segment);
    }
    Ok(answer)
}
