//! A sealed copy of the registry on disk, so that a start without the registry serves.

use super::ClusterRow;
use crate::{
    crypto::{Keyring, OpenError, Purpose, SealError, Sealed},
    tenant::Plan,
};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// First line of what is sealed.
const FORM: &str = "pgusher snapshot 1";

/// What the line of the plans begins with: no tenant's id. A file without it is read, too.
const PLANS: &str = "/plans ";

const PURPOSE: Purpose<'static> = Purpose {
    owner: "proxy",
    what: "snapshot",
};

/// Why there is no snapshot. No variant holds what is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    /// The file.
    #[error("it can't be read or written")]
    File(#[from] io::Error),
    /// Another key, or not what was written.
    #[error("it can't be opened")]
    Open(#[from] OpenError),
    /// It can't be sealed.
    #[error("it can't be sealed")]
    Seal(#[from] SealError),
    /// Another version's, perhaps.
    #[error("it is not in the form that this version of pgusher reads")]
    Form,
}

/// The registry as it was.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// When it was surely so.
    pub(super) as_of: SystemTime,
    pub(super) clusters: Vec<ClusterRow>,
    /// The registry's own.
    pub(super) plans: Vec<Plan>,
    /// Ids, and rows as JSON.
    pub(super) tenants: Vec<(Box<str>, Box<[u8]>)>,
}

/// Reads it. Blocks.
///
/// # Errors
/// [`SnapshotError`].
pub(super) fn read(path: &Path, keyring: &Keyring) -> Result<Snapshot, SnapshotError> {
    let sealed = fs::read(path)?;
    let text = keyring.open(PURPOSE, Sealed(&sealed))?;
    parse(&text).ok_or(SnapshotError::Form)
}

fn parse(text: &[u8]) -> Option<Snapshot> {
    let mut lines = text.split(|byte| *byte == b'\n');
    if lines.next()? != FORM.as_bytes() {
        return None;
    }
    let seconds = std::str::from_utf8(lines.next()?).ok()?.parse().ok()?;
    let clusters = serde_json::from_slice(lines.next()?).ok()?;
    let mut plans = Vec::new();
    let tenants = lines.filter(|line| !line.is_empty());
    let tenants = tenants.filter(|line| {
        let found = line.strip_prefix(PLANS.as_bytes());
        let found = found.map(|json| serde_json::from_slice(json).unwrap_or_default());
        found.map(|found| plans = found).is_none()
    });
    let tenants = tenants.map(|line| {
        let at = line.iter().position(|byte| *byte == b' ')?;
        let (id, json) = line.split_at_checked(at)?;
        Some((std::str::from_utf8(id).ok()?.into(), json.get(1..)?.into()))
    });
    let tenants = tenants.collect::<Option<_>>()?;
    Some(Snapshot {
        as_of: UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?,
        clusters,
        plans,
        tenants,
    })
}

/// Replaces the file, at once or not at all; only we can read it. Blocks.
///
/// # Errors
/// [`SnapshotError`]; the old file stays.
pub(super) fn write(
    path: &Path,
    keyring: &Keyring,
    snapshot: &Snapshot,
) -> Result<(), SnapshotError> {
    let since = snapshot.as_of.duration_since(UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs();
    let clusters = serde_json::to_string(&snapshot.clusters).map_err(io::Error::from)?;
    let mut text = format!("{FORM}\n{seconds}\n{clusters}\n").into_bytes();
    let plans = serde_json::to_string(&snapshot.plans).map_err(io::Error::from)?;
    text.extend_from_slice(format!("{PLANS}{plans}\n").as_bytes());
    for (id, json) in &snapshot.tenants {
        text.extend_from_slice(id.as_bytes());
        text.push(b' ');
        text.extend_from_slice(json);
        text.push(b'\n');
    }
    let sealed = keyring.seal(PURPOSE, &text)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(&sealed)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    let folder = path.parent().filter(|parent| *parent != Path::new(""));
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn keyring() -> Keyring {
        Keyring::parse(Keyring::new_line(1).unwrap().expose()).unwrap()
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            as_of: UNIX_EPOCH + Duration::from_hours(500_000),
            clusters: Vec::new(),
            plans: vec![Plan {
                name: "gold".to_owned(),
                users: Some(5),
                ..Plan::default()
            }],
            tenants: vec![("acme".into(), (*b"{\"a\": 1}").into())],
        }
    }

    #[test]
    fn what_was_written_is_read_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.snapshot");
        let keyring = keyring();
        for _ in 0..2 {
            write(&path, &keyring, &snapshot()).unwrap();
        }
        let read = read(&path, &keyring).unwrap();
        assert_eq!(read.as_of, snapshot().as_of);
        assert_eq!(read.tenants, snapshot().tenants);
        assert_eq!(read.plans, snapshot().plans);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"acme"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_key_or_a_changed_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.snapshot");
        let keyring = keyring();
        write(&path, &keyring, &snapshot()).unwrap();
        let other = read(&path, &self::keyring());
        assert!(matches!(other, Err(SnapshotError::Open(OpenError::Tag(1)))));
        let mut bytes = fs::read(&path).unwrap();
        for (at, count) in [(40, bytes.len()), (0, 3)] {
            bytes[at] ^= 1;
            fs::write(&path, &bytes[..count]).unwrap();
            assert!(matches!(read(&path, &keyring), Err(SnapshotError::Open(_))));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path, &keyring), Err(SnapshotError::File(_))));
    }
}
