//! The routes of `/api`, and their description in `OpenAPI` 3.1, made from the same handlers.

use super::{
    Look, access, costs, entries, figures,
    guard::{self, Guard},
    open, plans,
    problem::{self, Problem},
    tenants,
};
use axum::{
    Json, Router, extract::State, http::StatusCode, middleware::from_fn_with_state, routing::any,
};
use serde_json::Value;
use std::sync::Arc;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pgusher admin API",
        description = "Tenants, their keys, users and configuration. Every change is an event with its actor and address. Errors are application/problem+json (RFC 9457)."
    ),
    modifiers(&Security, &Schemas),
    security(("token" = [])),
    tags(
        (name = "tenants", description = "Tenants and their lifecycle"),
        (name = "access", description = "Users and API keys"),
        (name = "config", description = "Configuration for the tenant's applications"),
        (name = "figures", description = "Plan, limits, use, events, health"),
        (name = "plans", description = "Bundles of limits and monthly quotas"),
        (name = "public", description = "Without a token")
    )
)]
struct Description;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some(
            "A token of `pgusher token create`, with a role: viewer, user, manager or admin. A tenant's own token reaches that tenant alone; its API keys may look at it."
                .to_owned(),
        );
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// What is referred to by name alone.
struct Schemas;

impl Modify for Schemas {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        components.schemas.extend([problem::schema()]);
    }
}

/// The routes that need a token, and those that don't.
fn parts() -> (OpenApiRouter<Look>, OpenApiRouter<Look>) {
    let protected = OpenApiRouter::with_openapi(Description::openapi())
        .merge(tenants::routes())
        .merge(access::routes())
        .merge(entries::routes())
        .merge(figures::routes())
        .merge(plans::routes())
        .merge(costs::routes());
    (protected, open::routes())
}

/// This description
#[utoipa::path(get, path = "/api/openapi.json", tag = "public", operation_id = "get_description",
    security(()), responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn description(State(document): State<Arc<Value>>) -> Json<Arc<Value>> {
    Json(document)
}

/// The routes over a registry.
pub(super) fn router(look: Look, guard: Guard) -> Router {
    let (protected, open) = parts();
    let (protected, _) = protected.split_for_parts();
    let (open, _) = open.split_for_parts();
    let protected = protected.route_layer(from_fn_with_state(guard.clone(), guard::protect));
    let open = open.route_layer(from_fn_with_state(guard, guard::bound));
    protected.merge(open).with_state(look)
}

/// What there is without a registry: the same answer to everything.
pub(super) fn without_registry() -> Router {
    let answer =
        || async { Problem::new(StatusCode::SERVICE_UNAVAILABLE, "there is no [registry]") };
    Router::new()
        .route("/api", any(answer))
        .route("/api/{*path}", any(answer))
}

/// `/api/openapi.json`, which tells nothing that is not public.
pub(super) fn described() -> Router {
    let (protected, open) = parts();
    let described = OpenApiRouter::new().routes(routes!(description));
    let document = protected.merge(open).into_openapi();
    let (router, own) = described.split_for_parts();
    let document = serde_json::to_value(document.merge_from(own)).unwrap_or_default();
    router.with_state(Arc::new(whole(document)))
}

/// With the schema of a new tenant in one piece. It is made of a change and more, and a change
/// allows nothing more: by the letter, no tenant would fit both.
fn whole(mut document: Value) -> Value {
    let schemas = document.pointer_mut("/components/schemas");
    let Some(schemas) = schemas.and_then(Value::as_object_mut) else {
        return document;
    };
    let mut new = schemas.get("TenantChange").cloned().unwrap_or_default();
    let more = schemas
        .get("NewTenant")
        .and_then(|schema| schema.pointer("/allOf/1").cloned());
    let (Some(fields), Some(more)) = (new.as_object_mut(), more) else {
        return document;
    };
    let properties = fields.get_mut("properties").and_then(Value::as_object_mut);
    if let (Some(properties), Some(own)) = (
        properties,
        more.get("properties").and_then(Value::as_object),
    ) {
        properties.extend(own.clone());
    }
    fields.insert(
        "required".to_owned(),
        more.get("required").cloned().unwrap_or_default(),
    );
    fields.insert("description".to_owned(), "A tenant to be made.".into());
    schemas.insert("NewTenant".to_owned(), new);
    document
}
