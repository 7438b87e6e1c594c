//! Who may call the standard's paths: liveness anybody, everything else the holders of keys whose
//! role may infer.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use fleet::access::Permission;
use oip::Caller;
use protocol::problem::{Problem, ProblemCode};
use std::sync::Arc;

use crate::access::LiveKey;
use crate::api::credentials::{Unknown, holder};
use crate::state::Cloud;

/// What anybody may ask: whether this process lives.
const OPEN: [&str; 2] = ["/v2/health/live", "/inference.GRPCInferenceService/ServerLive"];

pub(super) async fn admit(
    State(cloud): State<Arc<Cloud>>,
    mut request: Request,
    next: Next,
) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match identify(&cloud, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            let (parts, body) = request.into_parts();
            oip::discard(parts.version, &parts.headers, body);
            *refusal
        }
    }
}

fn identify(cloud: &Cloud, request: &Request) -> Result<Caller, Box<Response>> {
    let key = holder(cloud, request.headers(), request.extensions());
    let key = key.map_err(|unknown| refuse(&unknown, request))?;
    let may = key.need(Permission::Infer).and_then(|()| caller(cloud, &key));
    may.map_err(|problem| {
        cloud.events.api_forbidden();
        Box::new(oip::forbidden(request.headers(), &problem))
    })
}

fn refuse(unknown: &Unknown, request: &Request) -> Box<Response> {
    let text = unknown.to_string();
    let problem = Problem::new(ProblemCode::Unauthorised, text);
    match unknown {
        Unknown::Denied(_) => {
            let hint = "send \"Authorization: Bearer ID.SECRET\"; an operator makes keys with: \
                        outrigger key create";
            Box::new(oip::unauthenticated(request.headers(), &problem.hint(hint)))
        }
        Unknown::TooOften { wait_ms } => {
            Box::new(oip::too_many(request.headers(), &problem.retry_after_ms(*wait_ms)))
        }
    }
}

fn caller(cloud: &Cloud, key: &LiveKey) -> Result<Caller, Problem> {
    let tenant = cloud.access.tenant_models(&key.record.tenant).ok_or_else(|| {
        let text = format!("the key's tenant {} does not exist", key.record.tenant);
        Problem::new(ProblemCode::Unauthorised, text).hint("ask an admin of this cloud")
    })?;
    let caller = Caller::matching([key.record.models.clone(), tenant]).named(&key.id);
    let manages = key.record.role.allows(Permission::Load);
    Ok(if manages { caller.managing() } else { caller })
}
