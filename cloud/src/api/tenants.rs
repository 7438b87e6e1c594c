//! Tenants, and what theirs may ask.

use axum::Json;
use axum::extract::{Path, State};
use fleet::access::Permission;
use protocol::id::{InvalidName, TenantName};
use protocol::pattern::ModelPatterns;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::access::Access;
use crate::state::Cloud;
use crate::store::Store;
use crate::store::tenants::TENANTS_MAX;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    models: ModelPatterns,
}

impl Access {
    /// Refuses the name of a tenant that nobody made: it may be a slip.
    pub(super) fn check_tenant(&self, tenant: &TenantName) -> Result<(), ApiError> {
        if self.tenant_models(tenant).is_some() {
            return Ok(());
        }
        Err(ApiError::not_found(format!("there is no tenant {tenant}"))
            .hint(format!("make it with: outrigger tenant set {tenant} --model '*'")))
    }
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let tenants = cloud.db.call(Store::tenants).await?;
    Ok(Json(json!({ "tenants": tenants })))
}

pub(super) async fn put(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(Wanted { models }): Body<Wanted>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::ManageKeys)?;
    let name: TenantName =
        name.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))?;
    let (by, own, patterns) = (caller.by(), name.clone(), models.clone());
    if !cloud.db.call(move |store| store.put_tenant(&by, &own, &patterns)).await? {
        let text = format!("there are {TENANTS_MAX} tenants");
        return Err(ApiError::conflict("too_many_tenants", text));
    }
    cloud.access.put_tenant(name.clone(), models.clone());
    Ok(Json(json!({ "name": name, "models": models })))
}
