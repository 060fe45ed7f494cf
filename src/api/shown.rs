//! Answers that show a key, once. These types are for the description of the API; the answers are
//! made by the use cases' `reveal`.

use crate::control::{KeyView, TenantView};
use axum::Json;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A key just made. It is never shown again.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownKey {
    #[serde(flatten)]
    view: KeyView,
    /// The key itself: `pgu_…`.
    key: String,
    /// The `DATABASE_URL`, which holds the key.
    url: String,
}

/// A tenant just made. Its keys are never shown again.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownTenant {
    tenant: TenantView,
    /// Reads and writes.
    key: ShownKey,
    /// Reads.
    read_only_key: ShownKey,
    /// The `DATABASE_URL`; it holds the key.
    url: String,
    /// The `DATABASE_URL` that reads; it holds the key.
    read_only_url: String,
}

/// Such an answer.
pub(super) fn shown(revealed: Value) -> Json<Value> {
    Json(revealed)
}
