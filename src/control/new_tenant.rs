//! What a new tenant is to be, and what is shown of it once.

use super::{ControlError, CreatedKey, TenantChange, TenantView, names};
use crate::{
    provisioning::Variant,
    tenant::{Secret, Tier},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// A tenant to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct NewTenant {
    /// The user name of its clients: 1 to 63 of `a-z`, `0-9`, `_`, `-`.
    pub id: String,
    /// `database`, `schema` or `row`.
    pub tier: String,
    /// `own` or `shared` (tier row only): through slots that many tenants use in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Where; needed when there is more than one cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Everything that can be changed later.
    #[serde(flatten)]
    pub change: TenantChange,
}

impl TryFrom<Map<String, Value>> for NewTenant {
    type Error = String;

    /// By hand, so that an unknown field is an error in spite of `flatten`.
    fn try_from(mut map: Map<String, Value>) -> Result<Self, String> {
        let mut text = |field: &str| match map.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{field} must be a string")),
        };
        let missing = |field: &str| format!("missing field `{field}`");
        let id = text("id")?.ok_or_else(|| missing("id"))?;
        let tier = text("tier")?.ok_or_else(|| missing("tier"))?;
        let (variant, cluster) = (text("variant")?, text("cluster")?);
        let change =
            serde_json::from_value(Value::Object(map)).map_err(|error| error.to_string())?;
        Ok(Self {
            id,
            tier,
            variant,
            cluster,
            change,
        })
    }
}

/// A tenant just made: the only time that its keys are seen.
#[derive(Debug, Clone)]
pub struct CreatedTenant {
    /// The tenant.
    pub tenant: TenantView,
    /// Reads and writes.
    pub key: CreatedKey,
    /// Reads.
    pub read_only_key: CreatedKey,
    /// The `DATABASE_URL`; it holds the key.
    pub url: Secret,
    /// The `DATABASE_URL` that reads; it holds the key.
    pub read_only_url: Secret,
}

impl CreatedTenant {
    /// All of it, the keys too, to be shown once to who asked for it.
    pub fn reveal(&self) -> Value {
        json!({
            "tenant": self.tenant,
            "key": self.key.reveal(),
            "read_only_key": self.read_only_key.reveal(),
            "url": self.url.expose(),
            "read_only_url": self.read_only_url.expose(),
        })
    }
}

/// What is decided of a new tenant before anything is written.
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) tier: Tier,
    pub(super) variant: Variant,
    pub(super) cluster: Option<String>,
    pub(super) change: TenantChange,
}

impl Plan {
    pub(super) fn new(new: NewTenant) -> Result<Self, ControlError> {
        let invalid = |field: &str, problem: String| ControlError::Invalid {
            field: field.to_owned(),
            problem,
        };
        let id = names::tenant_id(&new.id)?.as_str().to_owned();
        let tier = new.tier.parse::<Tier>();
        let tier = tier.map_err(|error| invalid("tier", error.to_string()))?;
        let variant = match new.variant.as_deref() {
            None | Some("own") => Variant::Own,
            Some("shared") if tier == Tier::Row => Variant::Shared,
            Some("shared") => {
                let problem = "\"shared\" is for the tier \"row\" only".to_owned();
                return Err(invalid("variant", problem));
            }
            Some(_) => {
                let problem = "it must be \"own\" or \"shared\"".to_owned();
                return Err(invalid("variant", problem));
            }
        };
        new.change.check()?;
        Ok(Self {
            id,
            tier,
            variant,
            cluster: new.cluster,
            change: new.change,
        })
    }
}

/// The name in the registry.
pub(super) fn variant_name(variant: Variant) -> &'static str {
    match variant {
        Variant::Own => "own",
        Variant::Shared => "shared",
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_tenant_is_read_with_every_field_known() {
        let new: NewTenant = serde_json::from_value(
            json!({"id": "acme", "tier": "row", "pool_size": 5, "owner_email": null}),
        )
        .unwrap();
        assert_eq!(new.change.pool_size, Some(Some(5)));
        assert_eq!(new.change.owner_email, Some(None));
        for (wrong, says) in [
            (json!({"id": "acme"}), "missing field `tier`"),
            (json!({"id": 3, "tier": "row"}), "id must be a string"),
            (json!({"id": "a", "tier": "row", "colour": 1}), "colour"),
        ] {
            let error = serde_json::from_value::<NewTenant>(wrong).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
