//! A tenant's data, written to a file before it goes.

use super::{
    ControlError,
    place::{Cause, Site},
};
use std::path::Path;

/// That a file can be written there: it must not be there yet.
///
/// # Errors
/// [`ControlError::Invalid`].
pub(super) fn check(path: &Path) -> Result<(), ControlError> {
    let wrong = |problem: String| {
        Err(ControlError::Invalid {
            field: "dump".to_owned(),
            problem,
        })
    };
    if path.exists() {
        return wrong(format!("{} is there already", path.display()));
    }
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() || folder.is_dir() => Ok(()),
        _ => wrong(format!("{} is in no folder", path.display())),
    }
}

/// Writes a tenant's data.
pub(super) async fn write(_site: &Site, _path: &Path) -> Result<(), Cause> {
    Err("this build dumps nothing".into())
}
