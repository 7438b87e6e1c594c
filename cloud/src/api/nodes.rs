//! Inference nodes: let in by a token, listed, and shut out. Whoever runs one sees the hashes of all
//! keys, and answers in the name of the fleet, so this is for admins.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fleet::access::Permission;
use protocol::id::{InvalidName, NodeId};
use protocol::limits::NAME_MAX_BYTES;
use protocol::token::Token;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use super::tokens::lifetime_s;
use crate::state::{Cloud, now_s};
use crate::store::Store;
use crate::store::nodes::{NewNodeToken, NodeRecord};

const TTL_MAX_S: u32 = 7 * 24 * 60 * 60;
/// Host names and addresses of one node's certificate.
const NAMES_MAX: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    ttl_s: Option<u32>,
    #[serde(default)]
    label: String,
    /// Host names and addresses under which clients of the standard reach the node.
    #[serde(default)]
    names: Vec<String>,
}

impl Wanted {
    fn check(&self) -> Result<(), ApiError> {
        if self.label.len() > NAME_MAX_BYTES || self.label.contains(char::is_control) {
            let text = format!("a label has at most {NAME_MAX_BYTES} bytes, on one line");
            return Err(ApiError::invalid(text));
        }
        if self.names.len() > NAMES_MAX {
            return Err(ApiError::invalid(format!("a node has at most {NAMES_MAX} names")));
        }
        let bad = self.names.iter().find(|name| ServerName::try_from(name.as_str()).is_err());
        bad.map_or(Ok(()), |name| {
            Err(ApiError::invalid(format!("{name:?} is neither a host name nor an address")))
        })
    }
}

pub(super) async fn token(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(wanted): Body<Wanted>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::ManageKeys)?;
    wanted.check()?;
    let ttl_s = lifetime_s(wanted.ttl_s, TTL_MAX_S)?;
    let token = Token::from_entropy(link::entropy(), link::entropy(), cloud.ca.hash());
    let by = caller.by();
    let expires_at_s = by.now_s + i64::from(ttl_s);
    let (id, digest) = (token.id.clone(), token.secret.digest());
    let Wanted { label, names, .. } = wanted;
    let new = NewNodeToken { id, digest, label, names, expires_at_s };
    cloud.db.call(move |store| store.add_node_token(&by, &new)).await?;
    let answer = json!({ "id": token.id, "token": token.reveal(), "expires_at_s": expires_at_s });
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let nodes = cloud.db.call(Store::nodes).await?;
    let nodes: Vec<_> = nodes.iter().map(|node| describe(&cloud, node)).collect();
    Ok(Json(json!({ "nodes": nodes })))
}

fn describe(cloud: &Cloud, node: &NodeRecord) -> Value {
    let report = cloud.nodes.report(&node.id);
    let state = match &report {
        _ if node.removed => "removed",
        None => "away",
        Some(report) if report.draining => "draining",
        Some(report) if report.ready => "ready",
        Some(_) => "joining",
    };
    let report = report.unwrap_or_default();
    json!({
        "id": node.id,
        "name": if node.label.is_empty() { &node.hostname } else { &node.label },
        "names": node.names,
        "address": node.address,
        "version": node.version,
        "state": state,
        "joined_at_s": node.joined_at_s,
        "last_seen_s": if state == "away" { node.last_seen_s } else { Some(now_s()) },
        "requests_under_way": report.requests_under_way,
        "wait_us": report.wait_us,
        "devices": report.devices,
        "models": report.models,
        "models_missing": report.models_missing,
    })
}

pub(super) async fn remove(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::ManageKeys)?;
    let id: NodeId = id.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))?;
    let (by, own) = (caller.by(), id.clone());
    if !cloud.db.call(move |store| store.remove_node(&by, &own)).await? {
        return Err(ApiError::not_found(format!("there is no node {id}"))
            .hint("see what there is: outrigger node list"));
    }
    cloud.nodes.expel(&id);
    cloud.publish_desired().await?;
    Ok(Json(json!({ "id": id, "state": "removed" })))
}
